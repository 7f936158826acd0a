"""Both engines: against the formula, long queries, segments without words, damaged indexes."""

import json
import math
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from trime_fairseq.bm25 import default_engine, index_segments, open_searcher
from trime_fairseq.bm25.engines.base import K1, B
from trime_fairseq.bm25.engines.java import use_java
from trime_fairseq.cli.bm25 import main

from .small import ENGINES, LUCENE, largest_file, segments_of

# No stop words, and nothing that a stemmer shortens.
WORDS = [f"w{a}x{b}" for a in "bcdfgh" for b in "klmnpq"]


def by_formula(texts, queries):
    """Lucene's BM25, by loops."""
    texts = [text.split() for text in texts]
    average = sum(map(len, texts)) / sum(bool(text) for text in texts)
    scores = np.zeros((len(queries), len(texts)))
    for i, query in enumerate(queries):
        for word in query.split():
            df = sum(word in text for text in texts)
            for j, text in enumerate(texts):
                tf = Counter(text)[word]
                idf = math.log(1 + (sum(map(bool, texts)) - df + 0.5) / (df + 0.5))
                scores[i, j] += idf * tf / (tf + K1 * (1 - B + B * len(text) / average))
    return scores


@pytest.fixture
def opened(tmp_path):
    searchers = []

    def build(engine, texts, threads=1):
        segments = segments_of(tmp_path, texts)
        index_segments(segments, str(tmp_path / "index"), engine, threads=2)
        searchers.append(open_searcher(str(tmp_path / "index"), segments, threads))
        return searchers[-1]

    yield build
    for searcher in searchers:
        searcher.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_scores_by_formula(opened, engine):
    draw = random.Random(1)
    # Up to 40 words Lucene stores the length exactly.
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(3, 40))) for _ in range(40)]
    expected = by_formula(texts, texts)
    for threads in (1, 2):
        searcher = opened(engine, texts, threads)
        assert searcher.engine == engine
        ids, scores = searcher.search(texts, 15)
        assert ids.dtype == np.int32
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :15], rtol=1e-4)
        np.testing.assert_allclose(scores, np.take_along_axis(expected, ids.astype(int), axis=1), rtol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_word_of_a_long_query_counts(opened, engine):
    """3,072 words, more than Lucene's 1,024 clauses, of which each segment has one."""
    words = [f"z{number}q" for number in range(3072)]
    texts = [f"{word} {word}" for word in words[::512]]
    ids, scores = opened(engine, texts).search([" ".join(words)], 10)
    assert sorted(ids[0]) == [-1] * 4 + [*range(6)]
    assert (scores[0, :6] > 0).all()
    assert not scores[0, 6:].any()


@pytest.mark.parametrize("engine", ENGINES)
def test_without_words_and_of_one_word(opened, engine):
    texts = ["alpha beta gamma", "", "delta " * 3000, "alpha delta", "beta the and of"]
    ids, scores = opened(engine, texts).search([*texts, "unknown", "the of", 'a+b "(c -d:*)^ ~'], 5)
    assert ids[1].tolist() == [-1] * 5
    assert not scores[1].any()
    assert set(ids[2].tolist()) == {2, 3, -1}
    assert set(ids[0].tolist()) == {0, 3, 4, -1}
    assert (ids[5:7] == -1).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_index_is_kept_and_checked(tmp_path, engine, caplog):
    segments = segments_of(tmp_path, ["alpha beta", "beta", ""])
    folder = tmp_path / "deep" / "index"
    with caplog.at_level("INFO"):
        index_segments(segments, f"{folder}/", engine)
        index_segments(segments, str(folder), engine)
    assert "is there already" in caplog.text
    assert sorted(path.name for path in folder.parent.iterdir()) == ["index"]
    other = segments_of(tmp_path, ["alpha beta", "gamma"])
    with pytest.raises(ValueError, match="holds something else"):
        index_segments(other, str(folder), engine)
    with pytest.raises(ValueError, match="index of other segments"):
        open_searcher(str(folder), other)
    with pytest.raises(ValueError, match="run trime-bm25 index"):
        open_searcher(str(tmp_path / "none"), other)
    (folder / "trime.info").unlink()
    with pytest.raises(ValueError, match="index of 2 segments, but|is no index of Lucene"):
        open_searcher(str(folder), segments_of(tmp_path, ["alpha"]))


def _grown(folder):
    (folder / "more").write_text("file")


def _cut_off(folder):
    path = folder / "data.csc.index.npy"
    path.write_bytes(path.read_bytes()[:-4])


def _flipped(folder):
    path = folder / "indices.csc.index.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")


def _emptied(folder):
    (folder / "vocab.index.json").write_text("")


def _nested(folder):
    (folder / "vocab.index.json").write_text('{"a": ' * 100_000 + "}" * 100_000)


def _number(folder):
    path = folder / "params.index.json"
    path.write_text(path.read_text().replace('"num_docs": 4', '"num_docs": 1'))


def _not_finite(folder):
    path = folder / "data.csc.index.npy"
    np.save(path, np.load(path) * np.nan)


DAMAGES = [_cut_off, _flipped, _emptied, _nested, _number, _not_finite]


@pytest.mark.parametrize("damage", [_grown, *DAMAGES])
def test_damaged_index(tmp_path, damage):
    """It is neither complete nor searched."""
    segments = segments_of(tmp_path, ["alpha beta", "beta gamma", "gamma delta", "delta alpha"])
    folder = tmp_path / "index"
    index_segments(segments, str(folder), "bm25s")
    damage(folder)
    message = f"^`index_path` {folder} is damaged: .*; remove it and build it again$"
    with pytest.raises(ValueError, match=message):
        index_segments(segments, str(folder), "bm25s")
    with pytest.raises(ValueError, match=message):
        open_searcher(str(folder), segments)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_index_of_an_earlier_version(tmp_path, damage):
    """Which did not note the hash of its files: what they hold is checked."""
    segments = segments_of(tmp_path, ["alpha beta", "beta gamma", "gamma delta", "delta alpha"])
    folder = tmp_path / "index"
    index_segments(segments, str(folder), "bm25s")
    there = json.loads((folder / "trime.info").read_text())
    del there["files_hash"]
    (folder / "trime.info").write_text(json.dumps(there))
    index_segments(segments, str(folder), "bm25s")  # it is there
    open_searcher(str(folder), segments).close()
    damage(folder)
    with pytest.raises(
        ValueError, match="index is (no index of bm25s that can be read|an index of 1 segments)"
    ):
        open_searcher(str(folder), segments)


@pytest.mark.parametrize("texts", [200, 4000])
def test_full_disk_leaves_no_half_index(tmp_path, texts):
    """NumPy says how many items it has written, or, of short files, nothing."""
    segments = segments_of(tmp_path, ["alpha beta gamma"] * texts)
    message = f"^`index_path` {tmp_path}/index cannot be written .*: is the disk full"
    with largest_file(5 * texts), pytest.raises(ValueError, match=message):
        index_segments(segments, str(tmp_path / "index"), "bm25s")
    assert [path.name for path in tmp_path.iterdir()] == ["segments.json"]
    (tmp_path / "index.partial-killed").mkdir()
    index_segments(segments, str(tmp_path / "index"), "bm25s")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "segments.json"]


@pytest.mark.parametrize("threads", [0, -1, 10**6])
def test_impossible_threads(tmp_path, threads, capsys):
    segments = segments_of(tmp_path, ["alpha", "beta"])
    words = ["index", "--segments-path", segments.path, "--index-path", str(tmp_path / "index")]
    assert main([*words, "--threads", str(threads)]) == 1
    assert "trime-bm25 index: error: --threads must be" in capsys.readouterr().err
    with pytest.raises(ValueError, match="^`threads` must be"):
        index_segments(segments, str(tmp_path / "index"), "bm25s", threads)


def test_index_in_an_impossible_place(tmp_path):
    segments = segments_of(tmp_path, ["alpha", "beta"])
    (tmp_path / "file").write_text("mine")
    for place, message in (
        (tmp_path / "file", "is no folder"),
        ("/proc/x", "cannot be written"),
        ("/", "is no n"),
    ):
        with pytest.raises(ValueError, match=f"^`index_path` .*{message}"):
            index_segments(segments, str(place), "bm25s")
    assert (tmp_path / "file").read_text() == "mine"


def test_default_engine(tmp_path, monkeypatch, capsys):
    """lucene where Pyserini is installed, which is not imported to find out."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "pyserini")
    assert default_engine() == "lucene"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    segments = segments_of(tmp_path, ["alpha beta", "beta"])
    command = ["index", "--segments-path", segments.path, "--index-path", str(tmp_path / "index")]
    assert main(command) == 0
    assert (
        "engine bm25s, because Pyserini is not installed; "
        '--engine lucene needs pip install "trime_fairseq[lucene]"' in capsys.readouterr().out
    )
    index_segments(segments, str(tmp_path / "index"), "bm25s")  # it is there
    with pytest.raises(ValueError, match="`engine` other is not one of bm25s, lucene"):
        index_segments(segments, str(tmp_path / "other"), "other")


@pytest.mark.parametrize("engine", [LUCENE])
def test_index_of_pyserinis_own_command(tmp_path, engine):
    (tmp_path / "segments").mkdir()
    segments = segments_of(tmp_path / "segments", ["alpha beta", "beta gamma", ""])
    segments.info.write(segments.path)  # which Pyserini must not take for a segment
    use_java()
    command = [sys.executable, "-m", "pyserini.index.lucene", "--collection", "JsonCollection"]
    command += ["--input", tmp_path / "segments", "--index", tmp_path / "index", "--threads", "1"]
    command += ["--generator", "DefaultLuceneDocumentGenerator"]
    command += ["--storePositions", "--storeDocvectors", "--storeRaw"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    searcher = open_searcher(str(tmp_path / "index"), segments)
    assert searcher.search(["gamma"], 3)[0].tolist() == [[1, -1, -1]]
    searcher.close()
