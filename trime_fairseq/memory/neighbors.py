"""External memory: what the nearest keys of each token say about its target."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .numerics import accumulation_dtype


def neighbor_lse(
    scores: Tensor, tokens: Tensor, targets: Tensor, scale: float, sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of the scaled scores of the first k neighbours, and of those with the target's token.

    The A and P of :func:`trime_fairseq.memory.memory_lse` where each query has a memory of its own.

    Args:
        scores: floating point [N, K], larger is nearer, -inf where there is no neighbour.
        tokens: token that followed each neighbour, integers [N, K].
        targets: int64 [N].
        scale: factor of the scores; for A and P :func:`trime_fairseq.memory.similarity_scale`.
        sizes: values of k, increasing, the last one at most K.

    Returns:
        ``all_lse`` and ``positive_lse``, [len(sizes), N] each, float32 (float64 for float64); -inf over
        nothing.
    """
    scaled = scores.to(accumulation_dtype(scores.dtype)) * scale
    positive = scaled.masked_fill(tokens != targets.unsqueeze(1), -math.inf)
    return _running_lse(scaled, sizes), _running_lse(positive, sizes)


def _running_lse(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Log-sum-exp of the first k columns for each k, [len(sizes), N]; every value is read once."""
    sums: list[Tensor] = []
    begin = 0
    for end in sizes:
        part = values[:, begin:end].logsumexp(1)
        sums.append(torch.logaddexp(sums[-1], part) if sums else part)
        begin = end
    return torch.stack(sums) if sums else values.new_empty(0, values.size(0))
