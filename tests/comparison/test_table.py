"""The rows of the table: means over checkpoints, changes against the baseline, and what must be equal."""

import math
from dataclasses import replace

import numpy as np
import pytest

from trime_fairseq.comparison.bootstrap import interval, resampled_losses
from trime_fairseq.comparison.table import make_table

from .made_up import ORDINARY, TOKENS, compared


def test_rows():
    comparison, results = compared(*ORDINARY)
    rows = make_table(comparison, results)
    assert [(row.model, row.memory) for row in rows] == [
        (name, memory) for name, ppls, _ in ORDINARY for memory in ppls
    ]
    plain, cache = rows[:2]
    assert plain.ppl.value == pytest.approx(112)
    assert plain.ppl_of_checkpoints == (pytest.approx(112),)
    assert plain.tuned_ppl == pytest.approx(113)
    assert (plain.change, plain.change_nats) == (None, None)
    assert cache.change.value == pytest.approx(100 * (104 / 112 - 1))
    assert cache.change_nats.value == pytest.approx(math.log(104 / 112))
    for row in rows[1:]:
        assert row.ppl.interval.low < row.ppl.value < row.ppl.interval.high
        assert row.change.interval.low < row.change.value < row.change.interval.high
    # Paired: far narrower than the perplexity's own.
    assert cache.change.interval.high - cache.change.interval.low < 8
    assert 100 * (cache.ppl.interval.high - cache.ppl.interval.low) / 104 > 40


def test_several_checkpoints():
    """The loss is the mean of theirs; so are its intervals, over samples."""
    comparison, results = compared(*ORDINARY)
    (row,) = [row for row in make_table(comparison, results) if row.memory == "local"]
    assert row.ppl_of_checkpoints == tuple(pytest.approx(101 * (1 + 0.01 * seed)) for seed in range(3))
    assert row.ppl.value == pytest.approx(101 * (1.01 * 1.02) ** (1 / 3))
    nll = np.mean([result.row("local").nll for result in results["TrimeLM"]], axis=0)
    draws = np.exp(resampled_losses(nll[None], np.array(TOKENS))[:, 0])
    assert row.ppl.interval == pytest.approx(interval(draws))


def test_another_baseline():
    comparison, results = compared(*ORDINARY)
    baseline = (comparison.models[1].name, comparison.models[1].memories[1])
    rows = make_table(replace(comparison, baseline=baseline), results)
    changes = {(row.model, row.memory): row.change for row in rows}
    assert [row for row, change in changes.items() if change is None] == [("TrimeLM", "local")]
    assert changes["plain LM", "none"].value > 0


def test_rows_must_be_of_the_same_tokens():
    comparison, results = compared(*ORDINARY)
    results["TrimeLM"][2] = replace(results["TrimeLM"][2], text="other", tokens=TOKENS[1:])
    message = "TrimeLM, TrimeLM-2.pt: 3,900 test tokens in 39 samples, not those of plain LM, plain LM-0.pt"
    with pytest.raises(ValueError, match=message):
        make_table(comparison, results)
