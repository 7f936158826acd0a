"""Interpolation of distributions, of which some say nothing about some tokens."""

import math

import torch
from torch import Tensor

# Log-probabilities, floating point; their weight in [0, 1]; where they exist, bool. All shapes broadcast.
Weighted = tuple[Tensor, float, Tensor]


def interpolate(log_prob: Tensor, *others: Weighted) -> Tensor:
    """log of (1 - w_1 - ... - w_n) exp(log_prob) + w_1 exp(other_1) + ... + w_n exp(other_n).

    A distribution that does not exist for a token gives its weight there to ``log_prob``.

    Args:
        log_prob: log-probabilities, floating point.
        others: triples of log-probabilities (anything, even NaN, where they do not exist), weight, and where
            they exist. The weights sum to at most 1.
    """
    dtype = log_prob.dtype
    result = remaining_weight(*others).log().to(dtype) + log_prob
    for other, weight, exists in others:
        share = (weight * exists.double()).log().to(dtype)
        result = torch.logaddexp(result, share + torch.where(exists, other, other.new_full((), -math.inf)))
    return result


def remaining_weight(*others: Weighted) -> Tensor:
    """1 - w_1 - ... - w_n over those that exist, float64, at least 0; of shape [] without any."""
    # In double precision: what is left of 0.3 and 0.7 is nothing.
    rest = torch.ones((), dtype=torch.float64)
    for _, weight, exists in others:
        rest = rest - weight * exists.double()
    return rest.clamp(min=0.0)
