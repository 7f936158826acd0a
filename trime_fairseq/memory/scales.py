"""The log-sum-exps over a memory at several temperatures, from similarities that are computed once."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .autograd import LseInputs
from .chunked import default_tile_size, tile_scores
from .lse import memory_lse
from .numerics import accumulation_dtype, without_autocast
from .reductions import gather_positives, lse_of_marked, lse_of_rows
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
        of_positives = lse_of_marked(similarity, positive, scales)
    else:
        of_positives = lse_of_rows(similarity.masked_fill(~positive, -math.inf), scales)
    return torch.stack([lse_of_rows(similarity, scales), of_positives])
