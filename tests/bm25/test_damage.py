"""Every file of BM25 batching, damaged at random: the right result, or one error that names a file."""

import random
import shutil

import numpy as np
import pytest

from tests.fuzzing.mutations import damage
from trime_fairseq.bm25 import (
    SearchResults,
    index_segments,
    open_searcher,
    read_segments,
    search_segments,
    write_batches,
)
from trime_fairseq.bm25.report import compare, read_list, read_report, report_facts, write_report
from trime_fairseq.data.predefined import check_description, read_predefined

from .small import segments_of

pytest.importorskip("bm25s")
COUNT, MUTATIONS = 40, 120


@pytest.fixture
def made(tmp_path, monkeypatch):
    """All that the commands write, in the working directory."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(1)
    words = ["red", "green", "blue", "sky", "sun", "moon"]
    texts = [" ".join(draw.choices(words, k=5)) for _ in range(COUNT)]
    segments = segments_of(tmp_path, texts)
    segments.info.write("segments.json")
    index_segments(segments, "index", "bm25s")
    results = search_segments(segments, open_searcher("index", segments), "results", k=5, piece=10)
    write_batches(results, "batches.json")
    order = read_list("batches.json", segments)
    write_report(compare(segments, order), "report", **report_facts(segments, order, 200, 1))
    return tmp_path


def use():
    """What later commands and the training read."""
    segments = read_segments("segments.json")
    searcher = open_searcher("index", segments)
    shutil.rmtree("again", ignore_errors=True)
    again = search_segments(segments, searcher, "again", k=5, piece=10).read()
    found = SearchResults.open("results").read()
    cut = dict(tokens_per_sample=8, sample_break_mode="none")
    check_description("batches.json", **cut, data_hash=lambda: "text")
    order = read_predefined("batches.json", COUNT, 8)
    reported = read_report("report", **report_facts(segments, order, 200, 1))
    return [*again, *found, order, read_list("batches.json", segments)], reported


def test_random_damages(made):
    expected, reported = use()
    files = [path.relative_to(made) for path in made.rglob("*") if path.is_file()]
    files = sorted(path for path in files if path.parts[0] != "again")
    assert len(files) == 17
    draw = random.Random(2)
    for number in range(MUTATIONS):
        path = draw.choice(files)
        whole = path.read_bytes()
        path.write_bytes(damage(path.name, whole, draw)[1])
        error, there = None, None
        try:
            arrays, there = use()
        except ValueError as problem:
            error = str(problem)
        if error:
            assert path.parts[0].split(".")[0] in error, (number, path)
            assert len(error) < 1000, (number, path)
            assert "\n" not in error, (number, path)
        else:
            for found, right in zip(arrays, expected):
                np.testing.assert_array_equal(found, right, err_msg=f"{number} {path}")
            # The report alone is made again.
            assert there in (None, reported) or path.name == "report.json", (number, path)
        path.write_bytes(whole)
    assert use()[1] == reported
