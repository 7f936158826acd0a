"""Similarity of consecutive segments, by loops."""

import json
import os

import numpy as np
import pytest

from trime_fairseq.bm25.batches import BatchesInfo, order_hash
from trime_fairseq.bm25.report import compare, read_list, read_report, table, write_report
from trime_fairseq.cli.bm25 import main
from trime_fairseq.data.predefined import read_predefined

from .small import segments_of
from .test_engines import by_formula

pytest.importorskip("bm25s")
TEXTS = ["red green blue", "green blue blue", "one two", "two three red", "", "blue sky", "sky sky one"]


def test_by_loops(tmp_path):
    order = np.array([3, 0, 1, 5, 6, 2, 4])
    # "blue" occurs four times and is not rare.
    similarities = compare(segments_of(tmp_path, TEXTS), order, rare=4)
    expected = []
    for a, b in zip(order, order[1:]):
        one, two = (set(TEXTS[n].split()) - {"blue"} for n in (a, b))
        expected.append(len(one & two) / len(one | two) if one | two else 0.0)
    np.testing.assert_allclose(similarities["list"].overlap, expected)
    assert 0 < np.mean(expected) < 1


def test_scores_by_formula(tmp_path):
    texts = [text for text in TEXTS if text]
    order = np.array([3, 0, 1, 5, 4, 2])
    similarities = compare(segments_of(tmp_path, texts), order)
    formula = by_formula(texts, texts)
    for name, expected in (("list", order), ("text", np.arange(6))):
        of = similarities[name].bm25
        np.testing.assert_allclose(of, formula[expected[:-1], expected[1:]], rtol=1e-4)


def test_files(tmp_path):
    similarities = compare(segments_of(tmp_path, TEXTS), np.arange(len(TEXTS)))
    summarised = write_report(similarities, str(tmp_path / "out"), segments=7)
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["segments"] == 7
    assert content["text"] == content["list"]
    assert content["random"]["overlap"]["times_random"] == 1
    assert (tmp_path / "out" / "report.png").read_bytes()[:4] == b"\x89PNG"
    assert "| the list |" in table(summarised)
    assert read_report(str(tmp_path / "out"), segments=7) == summarised
    assert read_report(str(tmp_path / "out"), segments=8) is None


def test_no_overlap_is_written_as_json(tmp_path):
    """A ratio to nothing is no number of JSON."""
    similarities = compare(segments_of(tmp_path, ["red", "green", "blue"]), np.arange(3))
    write_report(similarities, str(tmp_path))
    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert content["list"]["overlap"]["times_random"] is None
    assert "| inf |" in table(content)


@pytest.fixture
def report(tmp_path):
    """Runs the command on a small text; its exit status."""
    segments, batches = segments_of(tmp_path, TEXTS), tmp_path / "b.json"
    batches.write_text("[3, 0, 1, 5, 6, 2, 4]")

    def run(*flags):
        paths = ["--segments-path", segments.path, "--batch-file", str(batches)]
        return main(["report", *paths, "--output", str(tmp_path / "out"), *flags])

    return run


def test_report_is_made_again_if_it_is_not_whole(tmp_path, report, capsys):
    """Whatever the dates of its files are."""
    assert report() == 0
    printed = capsys.readouterr().out
    files = [tmp_path / "out" / name for name in ("report.png", "report.json")]
    before = [path.read_bytes() for path in files]
    for path in (*files, tmp_path / "b.json"):
        os.utime(path, (4e9, 4e9))
    assert report() == 0
    again = capsys.readouterr().out
    assert "the report is there already" in again
    assert printed.splitlines()[-5:] == again.splitlines()[-5:]
    for damage in (lambda: files[0].write_bytes(b""), files[0].unlink, lambda: files[1].write_text("{}")):
        damage()
        os.utime(tmp_path / "out", (4e9, 4e9))
        assert report() == 0
        assert "already" not in capsys.readouterr().out
        assert [path.read_bytes() for path in files] == before
    assert report("--rare", "3") == 0
    assert "already" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seed", "-1"), "--seed must not be negative: -1"),
        (("--seed", "1" + "0" * 30), "--seed must be at most 4,294,967,295"),
        (("--rare", "0"), "--rare must be positive, not 0"),
    ],
)
def test_impossible_numbers(report, capsys, flags, message):
    assert report(*flags) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"trime-bm25 report: error: {message}")


NO_LISTS = [
    "[0, 1, 1]",
    "[0, 1]",
    "[0, 1, 3]",
    "[0, 1, -1]",
    "{}",
    "[0",
    "",
    '["a", "b", "c"]',
    '["0", "1", "2"]',
    "[0.0, 1, 2]",
    "[0, 1, 2.0]",
    "[true, 0, 2]",
    "[0, 1, NaN]",
    "[0, 1, null]",
    "[[0, 1, 2]]",
    f"[0, 1, {10**30}]",
    f"[0, 1, {'9' * 5000}]",
    "[" * 100_000 + "]" * 100_000,
    "[0, 1, 2" + " " * 2**21 + "]",
]


@pytest.mark.parametrize("content", NO_LISTS, ids=lambda text: text[:20])
def test_lists_that_are_none(tmp_path, content):
    """The report refuses what the training refuses, with the same words."""
    path = tmp_path / "b.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="^`batch_file` .*b.json") as ours:
        read_list(str(path), segments_of(tmp_path, ["a", "b", "c"]))
    with pytest.raises(ValueError, match="^--predefined-batches .*b.json") as theirs:
        read_predefined(str(path), 3, 128)
    assert len(str(ours.value)) < 1000
    beginning = [str(error.value).split(f"{path}", 1)[1][:20] for error in (ours, theirs)]
    assert beginning[0] == beginning[1]


def test_list_of_another_description(tmp_path):
    path = tmp_path / "b.json"
    path.write_text("[2, 0, 1]")
    facts = dict(engine="bm25s", k=1, seed=1, neighbor_share=1.0, segments=3)
    segments = segments_of(tmp_path, ["a", "b", "c"])
    described = BatchesInfo(**facts, order_hash=order_hash([2, 0, 1]), text_hash=segments.info.text_hash)
    described.write(str(path))
    assert read_list(str(path), segments).tolist() == [2, 0, 1]
    path.write_text("[0, 2, 1]")
    with pytest.raises(ValueError, match="is not the list that the .info beside it describes"):
        read_list(str(path), segments)


def test_a_single_segment(tmp_path):
    with pytest.raises(ValueError, match="no neighbour"):
        compare(segments_of(tmp_path, ["a"]), np.arange(1))
