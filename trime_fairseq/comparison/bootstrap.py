"""Confidence intervals by resampling the samples of the test text."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
SEED = 1
COVERAGE = 0.95
# Counts that are drawn at once: 128 MB.
_AT_ONCE = 2**24

Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """The middle 95 % of the resampled values."""

    low: float
    high: float


def resampled_losses(nll: Floats, tokens: npt.NDArray[np.int64], resamples: int = RESAMPLES) -> Floats:
    """The loss per token of all rows, on texts that are drawn from the samples with replacement.

    All rows see the same draws. So the difference of two rows is a paired one: what makes a sample hard for
    both cancels.

    Args:
        nll: negative log-likelihood of each row and sample, float64 [R, S].
        tokens: of each sample, int64 [S].

    Returns:
        float64 [resamples, R], in the units of ``nll``. The same for the same input.
    """
    samples = len(tokens)
    random = np.random.default_rng(SEED)
    each = np.full(samples, 1 / samples)
    parts = []
    for begin in range(0, resamples, most := max(1, _AT_ONCE // samples)):
        counts = random.multinomial(samples, each, size=min(most, resamples - begin)).astype(np.float64)
        parts.append(counts @ nll.T / (counts @ tokens)[:, None])
    return np.concatenate(parts)


def interval(values: Floats) -> Interval:
    """Of resampled values [resamples]."""
    outside = (1 - COVERAGE) / 2
    low, high = np.quantile(values, [outside, 1 - outside])
    return Interval(float(low), float(high))
