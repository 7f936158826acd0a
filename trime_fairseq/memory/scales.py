"""The log-sum-exps over a memory at several temperatures, from similarities that are computed once."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .autograd import LseInputs
from .chunked import default_tile_size, gather_positives, tile_scores
from .lse import memory_lse
from .numerics import accumulation_dtype, without_autocast
from .tiling import Tile
from .visibility import Visibility


def memory_lse_at_scales(
    queries: Tensor,
    keys: Tensor,
    query_targets: Tensor,
    key_tokens: Tensor,
    visibility: Visibility,
    scales: Sequence[float],
    *,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """What :func:`memory_lse` gives for each of several scales. It has no gradient.

    A further scale costs an exponential per visible pair: a tenth of what the similarities, and finding those
    with the target's token, cost on a CPU.

    Args:
        queries, keys, query_targets, key_tokens, visibility: as of :func:`memory_lse`.
        scales: S factors of the dot products, each positive.
        impl: as of :func:`memory_lse`; with several scales ``auto`` and ``chunked`` share the similarities,
            the others compute them anew for each.

    Returns:
        ``all_lse`` and ``positive_lse``, [S, N] each.
    """
    if len(scales) == 1 or impl not in ("auto", "chunked"):
        lses = [
            memory_lse(queries, keys, query_targets, key_tokens, visibility, scale, impl=impl)
            for scale in scales
        ]
        all_lse, positive_lse = (torch.stack(lse) for lse in zip(*lses))
        return all_lse, positive_lse
    inputs = LseInputs(queries, keys, query_targets, key_tokens, visibility, 1.0, (0, 0))
    with torch.no_grad(), without_autocast(queries.device.type):
        return _chunked(inputs.with_tile_size(default_tile_size(inputs)), scales)


def _chunked(inputs: LseInputs, scales: Sequence[float]) -> tuple[Tensor, Tensor]:
    parts, count = inputs.visibility.repeats, inputs.queries.size(0)
    dtype = accumulation_dtype(inputs.queries.dtype)
    lses = inputs.queries.new_full((2, len(scales), count), -math.inf, dtype=dtype)
    of_parts = lses.view(2, len(scales), parts, -1)
    tiles, inputs = inputs.tiles(), inputs.in_parts()
    for tile in tiles:
        place = of_parts[(slice(None), slice(None), *tile.row)]
        place.copy_(torch.logaddexp(place, _of_tile(inputs, tile, scales)))
    return lses[0], lses[1]


def _of_tile(inputs: LseInputs, tile: Tile, scales: Sequence[float]) -> Tensor:
    """A and P of the keys of a tile, [2, scales, parts, queries]."""
    similarity, positive = tile_scores(inputs, tile)
    if gather_positives(similarity):
        # A query is a group.
        index = positive.view(-1).nonzero().squeeze(1)
        group = index.div(positive.size(-1), rounding_mode="floor")
        of_positives = lse_of_groups(similarity.view(-1)[index], group, positive.shape[:-1], scales)
    else:
        of_positives = lse_of_rows(similarity.masked_fill(~positive, -math.inf), scales)
    return torch.stack([lse_of_rows(similarity, scales), of_positives])


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


def lse_of_groups(values: Tensor, group: Tensor, shape: tuple[int, ...], scales: Sequence[float]) -> Tensor:
    """Log-sum-exp of the values [n] of each group, for each scale.

    Args:
        values: floating point [n]; overwritten.
        group: of each value, int64 [n], an index into a flattened tensor of shape ``shape``.
        shape: how the groups are laid out.
        scales: factors of the values.

    Returns:
        [scales, *shape]; -inf for a group without values.
    """
    count = math.prod(shape)
    highest = values.new_full((count,), -math.inf).scatter_reduce_(0, group, values, "amax")
    values -= _finite(highest)[group]
    sums = values.new_zeros(len(scales), count)
    for total, scale in zip(sums, scales):
        total.index_add_(0, group, (values * scale).exp_()).log_().add_(highest, alpha=scale)
    return sums.view(len(scales), *shape)


def _finite(highest: Tensor) -> Tensor:
    """0 where there is nothing, in place: -inf - -inf would be NaN."""
    return highest.masked_fill_(highest == -math.inf, 0.0)
