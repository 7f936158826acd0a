"""Similarity of consecutive segments, by loops."""

import json

import numpy as np
import pytest

from trime_fairseq.bm25.report import compare, read_list, table, write_report

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
    write_report(similarities, str(tmp_path / "out"), segments=7)
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["segments"] == 7
    assert content["text"] == content["list"]
    assert content["random"]["overlap"]["times_random"] == 1
    assert (tmp_path / "out" / "report.png").read_bytes()[:4] == b"\x89PNG"
    assert "| the list |" in table(similarities)


@pytest.mark.parametrize("content", ["[0, 1, 1]", "[0, 1]", "[0, 1, 3]", "{}", "[0", '["a", "b", "c"]'])
def test_lists_that_are_none(tmp_path, content):
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(ValueError, match="`batch_file` .*b.json"):
        read_list(str(tmp_path / "b.json"), segments_of(tmp_path, ["a", "b", "c"]))


def test_a_single_segment(tmp_path):
    with pytest.raises(ValueError, match="no neighbour"):
        compare(segments_of(tmp_path, ["a"]), np.arange(1))
