"""External memory: what the nearest keys of each token say about its target."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .numerics import accumulation_dtype
from .reductions import gather_positives, lse_of_marked, lse_of_rows


def neighbor_lse(
    scores: Tensor, tokens: Tensor, targets: Tensor, scales: Sequence[float], sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of the scaled scores of the first k neighbours, and of those with the target's token.

    The A and P of :func:`trime_fairseq.memory.memory_lse` where each query has a memory of its own, without
    gradient.

    Args:
        scores: floating point [N, K], larger is nearer, -inf where there is no neighbour.
        tokens: token that followed each neighbour, integers [N, K].
        targets: int64 [N].
        scales: S factors of the scores, positive; for A and P
            :func:`trime_fairseq.memory.similarity_scale`.
        sizes: values of k, increasing, the last one at most K.

    Returns:
        ``all_lse`` and ``positive_lse``, [S, len(sizes), N] each, float32 (float64 for float64); -inf over
        nothing.
    """
    scores = scores[:, : sizes[-1]].detach().to(accumulation_dtype(scores.dtype))
    positive = tokens[:, : sizes[-1]] == targets.unsqueeze(1)
    slices = [slice(*ends) for ends in zip((0, *sizes), sizes)]
    gathers = gather_positives(scores)
    every, positives = [], []
    for part in slices:
        values, marked = scores[:, part].contiguous(), positive[:, part].contiguous()
        positives.append(
            lse_of_marked(values, marked, scales)
            if gathers
            else lse_of_rows(values.masked_fill(~marked, -math.inf), scales)
        )
        every.append(lse_of_rows(values.clone(), scales))
    return torch.stack(every, 1).logcumsumexp(1), torch.stack(positives, 1).logcumsumexp(1)
