"""The export of segments: the file, and the command that makes it once."""

import json
import os
import threading
import time

import pytest

from tests.small_data import monolingual
from trime_fairseq.bm25 import SegmentsInfo, read_segments
from trime_fairseq.data import export
from trime_fairseq.data.export import export_segments, run_export, run_sentence_export
from trime_fairseq.data.pair_files import PairFiles, find_pairs
from trime_fairseq.data.provenance import text_files_hash
from trime_fairseq.files import file_hash


def test_exported_segments(tmp_path, dictionary):
    """Every segment in order, the words of its targets, no end-of-sentence symbols, words in any script."""
    dictionary.symbols[12] = 'ä"\\'
    segments = monolingual(dictionary, [5, 2, 3], 4, "none")
    path = tmp_path / "segments.json"
    export_segments(segments, dictionary, str(path))
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [entry["id"] for entry in found] == ["0", "1", "2"]
    words = {10: "g", 11: "h", 12: 'ä"\\', 13: "j", 15: "l", 17: "n", 18: "o"}
    assert [entry["contents"] for entry in found] == [
        " ".join(words[t] for t in segments[i]["target"].tolist() if t != dictionary.eos()) for i in range(3)
    ]
    assert sum(len(entry["contents"].split()) for entry in found) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["segments.json", "segments.json.info"]
    assert read_segments(str(path)).info.text_hash == file_hash(str(path))


def test_unfinished_export_does_not_bear_the_name(tmp_path, dictionary):
    segments = monolingual(dictionary, [5, 2, 3], 4, "none")

    class Broken:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 2:
                raise RuntimeError("out of order")
            return segments[index]

    with pytest.raises(RuntimeError):
        export_segments(Broken(), dictionary, str(tmp_path / "segments.json"))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def binarised(tmp_path):
    for ending in ("idx", "bin"):
        (tmp_path / f"train.{ending}").write_text(ending)
    return str(tmp_path)


@pytest.fixture
def runs(monkeypatch):
    """The arguments with which fairseq would have been run; in its place a slow writer of one segment."""
    found = []

    def write(data, path, tokens_per_sample, sample_break_mode):
        found.append((data, path, tokens_per_sample, sample_break_mode))
        time.sleep(0.2)
        with open(path, "w") as file:
            json.dump([{"id": "0", "contents": "a"}], file)
        data_hash = text_files_hash(data, "train" if tokens_per_sample else "train.es-en.en")
        SegmentsInfo(1, file_hash(path), data_hash, tokens_per_sample, sample_break_mode).write(path)

    monkeypatch.setattr(export, "_run_fairseq", write)
    return found


def test_exported_once(tmp_path, binarised, runs):
    """By several commands that are started together, of which one runs fairseq and the others wait."""
    path = str(tmp_path / "deep" / "segments.json")
    threads = [threading.Thread(target=run_export, args=(binarised, path, 8)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs == [(binarised, path, 8, "none")]
    assert read_segments(path).info.data_hash == file_hash(f"{binarised}/train.idx", f"{binarised}/train.bin")


def test_damaged_segments_are_exported_again(tmp_path, binarised, runs):
    path = tmp_path / "segments.json"
    run_export(binarised, str(path), 8)
    whole = path.read_text()
    for content in ("", whole[:-4], whole.replace("a", "b")):
        path.write_text(content)
        run_export(binarised, str(path), 8)
        assert path.read_text() == whole
    run_export(binarised, str(path), 8)
    assert len(runs) == 4


@pytest.mark.parametrize("tokens", [0, -1, 10**12])
def test_impossible_numbers(tmp_path, binarised, runs, tokens):
    with pytest.raises(ValueError, match="^`tokens_per_sample` must be"):
        run_export(binarised, str(tmp_path / "segments.json"), tokens)
    assert not runs


def test_places_are_checked_before_fairseq_starts(tmp_path, binarised, runs, monkeypatch):
    with pytest.raises(ValueError, match="^`segments_path` .*cannot be written"):
        run_export(binarised, "/proc/x/segments.json", 8)
    with pytest.raises(ValueError, match="^`segments_path` .* is a folder"):
        run_export(binarised, str(tmp_path), 8)
    assert not runs
    monkeypatch.undo()
    with pytest.raises(ValueError, match="^DATA_BIN .* holds no dict.txt: make it with fairseq-preprocess"):
        run_export(binarised, str(tmp_path / "segments.json"), 8)


def test_segments_of_another_text(tmp_path, binarised, runs):
    path = str(tmp_path / "segments.json")
    run_export(binarised, path, 8)
    message = "holds segments of another text, or cut otherwise"
    with pytest.raises(ValueError, match=rf"{message} \(there / here: tokens_per_sample 8 / 16\): remove it"):
        run_export(binarised, path, 16)
    with pytest.raises(ValueError, match=rf"{message} \(there / here: sample_break_mode none / eos\)"):
        run_export(binarised, path, 8, "eos")
    (tmp_path / "train.bin").write_text("another")
    with pytest.raises(ValueError, match=rf"{message} \(there / here: data_hash"):
        run_export(binarised, path, 8)
    os.remove(f"{path}.info")
    with pytest.raises(ValueError, match=f"^`segments_path` {path} {message}"):
        run_export(binarised, path, 8)
    assert len(runs) == 1


def test_several_folders(tmp_path, runs):
    with pytest.raises(
        ValueError, match="^--predefined-batches orders the segments of one DATA folder, not of"
    ):
        run_export(f"a{os.pathsep}b", str(tmp_path / "segments.json"), 8)
    assert not runs


def test_sentences_are_exported_once(tmp_path, binarised, runs):
    with pytest.raises(ValueError, match="^DATA_BIN .* holds no training pairs, such as train.de-en.de.idx"):
        run_sentence_export(binarised, str(tmp_path / "deep" / "sentences.json"))
    for name in ("es.idx", "es.bin", "en.idx", "en.bin"):
        (tmp_path / f"train.es-en.{name}").write_text(name)
    path = str(tmp_path / "sentences.json")
    for _ in range(2):
        run_sentence_export(binarised, path)
    assert runs == [(binarised, path, None, None)]
    message = "holds segments of another text, or cut otherwise"
    with pytest.raises(ValueError, match=rf"{message} \(there / here: .*tokens_per_sample None / 8"):
        run_export(binarised, path, 8)
    (tmp_path / "train.es-en.es.bin").write_text("another")
    run_sentence_export(binarised, path)
    (tmp_path / "train.es-en.en.bin").write_text("another")
    with pytest.raises(ValueError, match=rf"{message} \(there / here: data_hash"):
        run_sentence_export(binarised, path)
    assert len(runs) == 1


def test_pairs_are_found_by_their_names(tmp_path):
    for name in ("train.txt", "valid.de-en.de.idx", "train1.de-en.de.idx", "train.es-en.es.idx"):
        (tmp_path / name).write_text("")
    assert find_pairs(str(tmp_path), "train") == PairFiles(str(tmp_path), "train", "es", "en")
    assert find_pairs(str(tmp_path), "valid").name("en") == "valid.de-en.en"
    assert find_pairs(str(tmp_path), "test") is find_pairs(str(tmp_path / "no"), "train") is None
