"""The chunked implementation of ``memory_lse``: one tile of similarities at a time."""

import math

import torch
from torch import Tensor

from .autograd import LseInputs, recomputed_lse
from .numerics import accumulation_dtype, in_parts, similarities
from .reductions import gather_positives, lse_of_marked
from .tiling import Tile

# (queries, keys) of a tile. On an accelerator it is large enough to hide the launch of its kernels; on a CPU
# more queries make the products faster, but of short segments more of the hidden half is computed.
_TILE, _TILE_OF_CPU, _TILE_OF_SHORT_SEGMENTS = (1024, 8192), (512, 2048), (256, 2048)
_SHORT = 2048


def chunked_lse(inputs: LseInputs) -> tuple[Tensor, Tensor]:
    """See :func:`trime_fairseq.memory.memory_lse`."""
    return recomputed_lse(inputs.with_tile_size(default_tile_size(inputs)), _forward, _gradient)


def default_tile_size(inputs: LseInputs) -> tuple[int, int]:
    if inputs.queries.device.type != "cpu":
        return _TILE
    is_short = inputs.queries.size(0) < _SHORT * inputs.visibility.repeats
    return _TILE_OF_SHORT_SEGMENTS if is_short else _TILE_OF_CPU


def _forward(inputs: LseInputs) -> tuple[Tensor, Tensor]:
    dtype, tiles = accumulation_dtype(inputs.queries.dtype), inputs.tiles()
    lses = inputs.queries.new_full((2, inputs.queries.size(0)), -math.inf, dtype=dtype)
    all_lse, positive_lse = in_parts(inputs.visibility.repeats, *lses)
    inputs = inputs.in_parts()
    for tile in tiles:
        similarity, positive = tile_scores(inputs, tile)
        tile_all = similarity.logsumexp(-1)
        tile_positive = _positive_lse(similarity, positive)
        if not tile.first:
            tile_all = torch.logaddexp(all_lse[tile.row], tile_all)
            tile_positive = torch.logaddexp(positive_lse[tile.row], tile_positive)
        all_lse[tile.row], positive_lse[tile.row] = tile_all, tile_positive
    return lses[0], lses[1]


def _gradient(
    inputs: LseInputs, lses: tuple[Tensor, Tensor], grads: tuple[Tensor, Tensor], tile: Tile
) -> Tensor:
    similarity, positive = tile_scores(inputs, tile)
    all_lse, positive_lse, grad_all, grad_positive = (t[tile.row] for t in (*lses, *grads))
    grad = (similarity - all_lse.unsqueeze(-1)).exp_().mul_(grad_all.unsqueeze(-1))
    _add_positive_grad(grad, similarity, positive, positive_lse, grad_positive)
    return grad


def tile_scores(inputs: LseInputs, tile: Tile) -> tuple[Tensor, Tensor]:
    """Scaled similarities of a tile, -inf where hidden; and which keys have the target of the query, visible
    or not. [parts, queries, keys] each."""
    row, column = tile.row, tile.column
    similarity = similarities(inputs.queries[row], inputs.keys[column], inputs.scale)
    if tile.masked:
        inputs.visibility.hide(similarity, row[1], column[1])
    positive = inputs.key_tokens[column].unsqueeze(1) == inputs.query_targets[row].unsqueeze(-1)
    return similarity, positive


def _positive_lse(similarity: Tensor, positive: Tensor) -> Tensor:
    """Log-sum-exp over the last dimension of the entries marked ``positive``; overwrites ``similarity``."""
    if not gather_positives(similarity):
        return similarity.masked_fill_(~positive, -math.inf).logsumexp(-1)
    return lse_of_marked(similarity, positive, (1.0,))[0]


def _add_positive_grad(
    grad: Tensor, similarity: Tensor, positive: Tensor, positive_lse: Tensor, grad_positive: Tensor
) -> None:
    """Adds ``grad_positive * exp(similarity - positive_lse)`` to ``grad`` at the entries marked ``positive``.

    ``positive_lse`` and ``grad_positive`` have a value per row. Overwrites ``similarity``.
    """
    if not gather_positives(similarity):
        similarity.masked_fill_(~positive, -math.inf).sub_(positive_lse.unsqueeze(-1)).exp_()
        grad.addcmul_(similarity, grad_positive.unsqueeze(-1))
        return
    index = positive.view(-1).nonzero().squeeze(1)
    row = index.div(positive.size(-1), rounding_mode="floor")
    value = similarity.view(-1)[index].sub_(positive_lse.reshape(-1)[row]).exp_()
    grad.view(-1)[index] += value.mul_(grad_positive.reshape(-1)[row])
