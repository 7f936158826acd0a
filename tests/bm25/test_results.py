"""Results of a search that are damaged, or cannot be written."""

import json
import os
import shutil
import time

import numpy as np
import pytest

from tests.fuzzing.mutations import flip
from trime_fairseq.bm25 import SearchResults
from trime_fairseq.cli.bm25 import main
from trime_fairseq.files import new_temporary

from .numbers import N, Numbers, search
from .small import largest_file, segments_of


@pytest.fixture
def segments(tmp_path):
    return segments_of(tmp_path, [str(number) for number in range(N)])


def test_damaged_piece(tmp_path, segments):
    results = search(segments, tmp_path / "r")
    (tmp_path / "r" / "neighbors-00000004.npz").write_bytes(b"PK\3\4 and so on")
    with pytest.raises(ValueError, match="neighbors-00000004.npz is damaged .* remove it"):
        results.read()


def _npz(**arrays):
    def damage(path):
        there = dict(np.load(path))
        np.savez(path, **{**there, **{name: change(there) for name, change in arrays.items()}})

    return damage


def _bomb(path):
    np.savez_compressed(path, **np.load(path), zeros=np.zeros(2**26, np.uint8))


DAMAGES = {
    "one row for all": (_npz(ids=lambda a: a["ids"][:1]), r"ids must be int32 \[4, 3\], not int32 \[1, 3\]"),
    "one column": (_npz(scores=lambda a: a["scores"][:, :1]), r"scores must be float32 \[4, 3\], not"),
    "wide ids": (_npz(ids=lambda a: a["ids"].astype(np.int64) + 2**32), "ids must be int32 .*, not int64"),
    "floats": (_npz(ids=lambda a: a["ids"].astype(np.float32)), "not float32"),
    "no segment": (_npz(ids=lambda a: a["ids"] + 20), "ids must be from -1 to 22"),
    "negative": (_npz(ids=lambda a: a["ids"] - 5), "ids must be from -1 to 22"),
    "itself": (_npz(ids=lambda a: np.full_like(a["ids"], 5)), "a segment is its own neighbour"),
    "nan": (_npz(scores=lambda a: a["scores"] * np.nan), "scores must be finite"),
    "another piece": (_npz(begin=lambda a: np.int64(8)), "it is that of segment 8"),
    "other segments": (_npz(text_hash=lambda a: np.array("other")), "it is of other segments"),
    "pickle": (_npz(ids=lambda a: a["ids"].astype(object)), "Object arrays cannot be loaded"),
    "empty": (lambda path: path.write_bytes(b""), "it is too short"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is damaged"),
    "no archive": (lambda path: path.write_bytes(b"PK\3\4 and so on" * 20), "is damaged"),
    "flipped": (lambda path: flip(path, 200, 4), "is damaged"),
    "bomb": (_bomb, "holds more than a piece does"),
    "one array": (lambda path: path.write_bytes(b"\x93NUMPY\1\0" + b"9" * 300), "is damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_pieces(tmp_path, segments, name):
    """Refused where they are read, and searched again by a search that is started again."""
    damage, message = DAMAGES[name]
    whole = search(segments, tmp_path / "r").read()
    piece = tmp_path / "r" / "neighbors-00000004.npz"
    damage(piece)
    results = SearchResults.open(str(tmp_path / "r"))
    with pytest.raises(ValueError, match=rf"neighbors-00000004.npz is damaged \(.*{message}|{message}"):
        results.read()
    assert not results.missing()
    searcher = Numbers()
    search(segments, tmp_path / "r", searcher)
    assert searcher.asked == [4, 5, 6, 7]
    for ours, expected in zip(results.read(), whole):
        np.testing.assert_array_equal(ours, expected)


def test_pieces_of_earlier_versions(tmp_path, segments):
    whole = search(segments, tmp_path / "r").read()
    for path in (tmp_path / "r").glob("*.npz"):
        there = np.load(path)
        np.savez(path, ids=there["ids"], scores=there["scores"])
    searcher = Numbers()
    for ours, expected in zip(search(segments, tmp_path / "r", searcher).read(), whole):
        np.testing.assert_array_equal(ours, expected)
    assert not searcher.asked


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("segments", 10**15, "segments must be at most 2,147,483,647"),
        ("segments", "23", "segments must be an integer, not '23'"),
        ("segments", -1, "segments must be at least 0"),
        ("k", "50", "k must be an integer, not '50'"),
        ("k", 0, "k must be at least 1"),
        ("k", 3.0, "k must be an integer"),
        ("k", True, "k must be an integer"),
        ("k", 10**12, "k must be at most"),
        ("piece", 0, "piece must be at least 1"),
        ("num_shards", 10**12, "num_shards must be at most 100,000"),
        ("num_shards", None, "num_shards must be an integer"),
        ("engine", 5, "engine must be a text"),
        ("format_version", "1", "format_version must be an integer"),
        ("text_hash", None, "text_hash must be a text"),
    ],
)
def test_damaged_descriptions(tmp_path, segments, field, value, message):
    search(segments, tmp_path / "r")
    path = tmp_path / "r" / "search.info"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ValueError, match=f"^{tmp_path}/r/search.info: {message}"):
        SearchResults.open(str(tmp_path / "r"))


@pytest.mark.parametrize("claimed", [{"segments": 2**31 - 1}, {"segments": 2**31 - 1, "piece": 1}])
def test_descriptions_that_claim_too_much(tmp_path, segments, claimed):
    """Neither time nor memory goes where no pieces are."""
    search(segments, tmp_path / "r")
    path = tmp_path / "r" / "search.info"
    path.write_text(json.dumps({**json.loads(path.read_text()), **claimed, "num_shards": 100_000}))
    begin = time.monotonic()
    with pytest.raises(ValueError, match="pieces are missing, .*: run trime-bm25 search with"):
        SearchResults.open(str(tmp_path / "r")).read()
    assert time.monotonic() - begin < 5
    path.write_text(json.dumps({**json.loads(path.read_text()), "segments": 23, "piece": 10**6, "k": 10**9}))
    with pytest.raises(ValueError, match="neighbors-00000000.npz is damaged .it is too short"):
        SearchResults.open(str(tmp_path / "r")).read()


def test_engine_that_finds_what_is_no_segment(tmp_path, segments):
    class Beyond(Numbers):
        def search(self, queries, k):
            ids, scores = super().search(queries, k)
            return ids + 30, scores

    with pytest.raises(ValueError, match="^`index_path` finds ids that are no segments .ids must be from"):
        search(segments, tmp_path / "r", Beyond())
    assert not list((tmp_path / "r").glob("*.npz"))


def test_leftovers_of_a_killed_search(tmp_path, segments):
    """Of a piece that was written in the meantime, too; but not what another search writes now."""
    search(segments, tmp_path / "r")
    left = tmp_path / "r" / f"neighbors-00000004.npz.{'0' * 16}.tmp"
    left.write_text("half")
    number, living = new_temporary(str(tmp_path / "r" / "neighbors-00000008.npz"))
    try:
        search(segments, tmp_path / "r")
        assert [str(path) for path in (tmp_path / "r").glob("*.tmp")] == [living]
    finally:
        os.close(number)


def test_places_are_checked_before_the_search(tmp_path, segments, monkeypatch):
    (tmp_path / "file").write_text("mine")
    searcher = Numbers()
    with pytest.raises(ValueError, match="^`results_path` .*file is no folder"):
        search(segments, tmp_path / "file", searcher)
    with pytest.raises(ValueError, match="^`results_path` .*cannot be written"):
        search(segments, "/proc/none", searcher)
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 500))
    with pytest.raises(ValueError, match="^`results_path` .*552 bytes are to be .* has 500: make r"):
        search(segments, tmp_path / "r", searcher)
    assert not searcher.asked


def test_full_disk(tmp_path, segments):
    with largest_file(900), pytest.raises((OSError, ValueError), match="r/neighbors-00000000.npz"):
        search(segments, tmp_path / "r")
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["search.info"]


def test_full_disk_of_a_command(tmp_path, segments, capsys):
    search(segments, tmp_path / "r")
    words = ["batches", "--results-path", str(tmp_path / "r"), "--batch-file", str(tmp_path / "b.json")]
    with largest_file(60):
        assert main(words) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        f"trime-bm25 batches: error: {tmp_path}/b.json.info cannot be written (File too large"
    )
    assert last.endswith("): make room there, or choose another place, and run the command again")
    assert main(words) == 0
    assert sorted(path.name for path in tmp_path.glob("b.*")) == ["b.json", "b.json.info"]
