"""Log-sum-exps of scaled values: over rows, or over those of a row that are marked."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def gather_positives(similarity: Tensor) -> bool:
    """About one pair in a hundred is positive. On a CPU gathering those costs a third of another exponential
    over a large tile; on an accelerator it would wait for the device."""
    return similarity.device.type == "cpu" and similarity.numel() > 2**13


def lse_of_rows(values: Tensor, scales: Sequence[float]) -> Tensor:
    """Log-sum-exp over the last dimension for each scale, [scales, ...]; overwrites ``values``."""
    highest = _finite(values.amax(-1))
    values -= highest.unsqueeze(-1)
    exponentials = torch.empty_like(values)
    return torch.stack(
        [
            torch.mul(values, scale, out=exponentials).exp_().sum(-1).log_().add_(highest, alpha=scale)
            for scale in scales
        ]
    )


def lse_of_marked(values: Tensor, marked: Tensor, scales: Sequence[float]) -> Tensor:
    """Log-sum-exp over the last dimension of the entries that are marked, for each scale, [scales, ...].

    Only these are read, see :func:`gather_positives`. -inf where none is marked.
    """
    index = marked.view(-1).nonzero().squeeze(1)
    row, values = index.div(marked.size(-1), rounding_mode="floor"), values.view(-1)[index]
    shape = marked.shape[:-1]
    highest = values.new_full((math.prod(shape),), -math.inf).scatter_reduce_(0, row, values, "amax")
    values -= _finite(highest)[row]
    sums = values.new_zeros(len(scales), len(highest))
    for total, scale in zip(sums, scales):
        total.index_add_(0, row, (values * scale).exp_()).log_().add_(highest, alpha=scale)
    return sums.view(len(scales), *shape)


def _finite(highest: Tensor) -> Tensor:
    """0 where there is nothing, in place: -inf - -inf would be NaN."""
    return highest.masked_fill_(highest == -math.inf, 0.0)
