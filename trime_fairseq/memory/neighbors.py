"""External memory: what the neighbours of each token say about its target."""

import math
from typing import List, Sequence

import torch
from torch import Tensor


def neighbor_lse(
    scores: Tensor, tokens: Tensor, targets: Tensor, scale: float, sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of the scaled scores of the first k neighbours, and of those with the target's token.

    The A and P of :func:`trime_fairseq.memory.memory_lse` for a memory of its own per query.

    Args:
        scores: floating point [N, K], larger is nearer, -inf where there is no neighbour.
        tokens: token that followed each neighbour, integers [N, K].
        targets: int64 [N].
        scale: factor of the scores, 1 / (sqrt(d) * tau).
        sizes: values of k, increasing, the last one at most K.

    Returns:
        The two sums for each k, float32 (float64 for float64) [len(sizes), N]; -inf over nothing.
    """
    scaled = scores * scale
    positive = scaled.masked_fill(tokens != targets.unsqueeze(1), -math.inf)
    return torch.stack(_running_lse(scaled, sizes)), torch.stack(_running_lse(positive, sizes))


def _running_lse(values: Tensor, sizes: Sequence[int]) -> List[Tensor]:
    sums: List[Tensor] = []
    begin = 0
    for end in sizes:
        part = values[:, begin:end].logsumexp(1)
        sums.append(torch.logaddexp(sums[-1], part) if sums else part)
        begin = end
    return sums


def interpolate(log_prob: Tensor, other: Tensor, weight: float, exists: Tensor) -> Tensor:
    """log((1 - weight) exp(log_prob) + weight exp(other)); where ``other`` does not exist, log_prob. Shapes
    broadcast."""
    share = torch.where(exists, weight, 0.0).to(log_prob.dtype)
    return torch.logaddexp((1 - share).log() + log_prob, share.log() + other.masked_fill(~exists, -math.inf))
