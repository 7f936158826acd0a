"""Intervals by resampling samples."""

import numpy as np
import pytest

from trime_fairseq.comparison.bootstrap import interval, resampled_losses

TOKENS = np.full(60, 100)


def test_coverage_on_normal_data():
    """Of 400 texts, about 95 % have the true loss in their interval."""
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        nll = random.normal(4.0, 0.5, (1, 60)) * TOKENS
        low, high = interval(resampled_losses(nll, TOKENS, 1000)[:, 0])
        inside += low <= 4.0 <= high
    assert 0.92 <= inside / 400 <= 0.97


def test_width_is_that_of_the_standard_error():
    nll = np.random.default_rng(2).normal(4.0, 0.5, (1, 60)) * TOKENS
    low, high = interval(resampled_losses(nll, TOKENS)[:, 0])
    error = (nll / TOKENS).std() / 60**0.5
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def test_paired_differences_are_narrower():
    """What makes a sample hard for two rows cancels in their difference."""
    random = np.random.default_rng(3)
    hard = random.normal(4.0, 0.5, 60)
    nll = np.stack([hard, hard - 0.1 + random.normal(0, 0.02, 60)]) * TOKENS
    draws = resampled_losses(nll, TOKENS)
    of_row, of_difference = interval(draws[:, 0]), interval(draws[:, 1] - draws[:, 0])
    assert of_difference.high < 0
    assert of_difference.high - of_difference.low < 0.1 * (of_row.high - of_row.low)


def test_samples_count_by_their_tokens():
    """A long sample is drawn as often as a short one, and weighs more."""
    nll, tokens = np.array([[30.0, 1000.0]]), np.array([10, 1000])
    found = {round(loss, 6) for loss in resampled_losses(nll, tokens, 500)[:, 0].tolist()}
    assert found == {3.0, round(1030 / 1010, 6), 1.0}


def test_the_same_again_and_whatever_else_is_compared():
    random = np.random.default_rng(4)
    nll = random.normal(4.0, 0.5, (3, 60)) * TOKENS
    draws = resampled_losses(nll, TOKENS, 300)
    assert np.array_equal(draws, resampled_losses(nll, TOKENS, 300))
    assert np.allclose(draws[:, 2], resampled_losses(nll[2:], TOKENS, 300)[:, 0], rtol=1e-12)


def test_many_samples_are_drawn_in_parts(monkeypatch):
    nll = np.random.default_rng(5).normal(4.0, 0.5, (2, 60)) * TOKENS
    whole = resampled_losses(nll, TOKENS, 100)
    monkeypatch.setattr("trime_fairseq.comparison.bootstrap._AT_ONCE", 60 * 7)
    assert np.allclose(resampled_losses(nll, TOKENS, 100), whole, rtol=1e-12)
