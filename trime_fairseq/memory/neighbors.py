"""External memory: what the nearest keys of each token say about its target."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .numerics import accumulation_dtype
from .scales import lse_of_groups, lse_of_rows


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
    slices = [slice(*ends) for ends in zip((0, *sizes), sizes)]
    all_lse = torch.stack([lse_of_rows(scores[:, part].clone(), scales) for part in slices], 1)
    # The neighbours of a query in a slice are a group.
    row, column = (tokens[:, : sizes[-1]] == targets.unsqueeze(1)).nonzero(as_tuple=True)
    slice_of = torch.bucketize(column, torch.tensor(sizes, device=column.device), right=True)
    group = slice_of * len(targets) + row
    positive_lse = lse_of_groups(scores[row, column], group, (len(sizes), len(targets)), scales)
    return all_lse.logcumsumexp(1), positive_lse.logcumsumexp(1)
