"""The chunked implementation of :func:`trime_fairseq.memory.memory_lse`."""

import math
from typing import Tuple

import torch
from torch import Tensor

from .numerics import similarities
from .problem import Inputs, Plan, accumulation_dtype, in_parts
from .recomputed import Implementation, Results, recomputed_lse
from .tiling import Tile


def chunked_lse(inputs: Inputs, plan: Plan) -> Results:
    """See :func:`trime_fairseq.memory.memory_lse`."""
    return recomputed_lse(inputs, plan, Implementation(_forward, _gradient))


def _gather_positives(similarity: Tensor) -> bool:
    """About one pair in a hundred is positive. On a CPU gathering those costs a third of another exponential
    over a large tile; on an accelerator it would wait for the device."""
    return similarity.device.type == "cpu" and similarity.numel() > 2**13


def _positive_lse(similarity: Tensor, positive: Tensor) -> Tensor:
    """Log-sum-exp over the last dimension of the entries marked ``positive``; overwrites ``similarity``."""
    if not _gather_positives(similarity):
        return similarity.masked_fill_(~positive, -math.inf).logsumexp(-1)
    width = positive.size(-1)
    place = positive.view(-1).nonzero().squeeze(1)
    row, value = place.div(width, rounding_mode="floor"), similarity.view(-1)[place]
    highest = value.new_full((positive.numel() // width,), -math.inf)
    highest.scatter_reduce_(0, row, value, "amax")
    finite = highest.masked_fill(highest == -math.inf, 0.0)
    total = torch.zeros_like(highest).index_add_(0, row, (value - finite[row]).exp_())
    return total.log_().add_(finite).view(positive.shape[:-1])


def _add_positive_grad(
    grad: Tensor, similarity: Tensor, positive: Tensor, positive_lse: Tensor, upstream: Tensor
) -> None:
    """Adds ``upstream * exp(similarity - positive_lse)``, the last two of one dimension less, to ``grad``
    at the entries marked ``positive``; overwrites ``similarity``."""
    if not _gather_positives(similarity):
        similarity.masked_fill_(~positive, -math.inf).sub_(positive_lse.unsqueeze(-1)).exp_()
        grad.addcmul_(similarity, upstream.unsqueeze(-1))
        return
    place = positive.view(-1).nonzero().squeeze(1)
    row = place.div(positive.size(-1), rounding_mode="floor")
    value = similarity.view(-1)[place].sub_(positive_lse.reshape(-1)[row]).exp_()
    grad.view(-1)[place] += value.mul_(upstream.reshape(-1)[row])


def _scores(inputs: Inputs, plan: Plan, tile: Tile) -> Tuple[Tensor, Tensor]:
    """Of a tile: scaled similarities, -inf where hidden, and which keys have the target of the query, visible
    or not; [parts, queries, keys] each."""
    queries, keys, query_targets, key_tokens = inputs
    row, column = tile.row, tile.column
    similarity = similarities(queries[row], keys[column], plan.scale)
    if tile.masked:
        similarity.masked_fill_(plan.visibility.hidden(row[1], column[1], queries.device), -math.inf)
    positive = key_tokens[column].unsqueeze(1) == query_targets[row].unsqueeze(-1)
    return similarity, positive


def _forward(inputs: Inputs, plan: Plan) -> Results:
    dtype, parts = accumulation_dtype(inputs.queries.dtype), plan.visibility.repeats
    results = inputs.queries.new_full((2, inputs.queries.size(0)), -math.inf, dtype=dtype)
    every, positives = in_parts(parts, *results)
    inputs = Inputs(*in_parts(parts, *inputs))
    for tile in plan.visibility.tiles(inputs.keys.size(1), plan.size):
        similarity, positive = _scores(inputs, plan, tile)
        tile_all = similarity.logsumexp(-1)
        tile_positive = _positive_lse(similarity, positive)
        if not tile.first:
            tile_all = torch.logaddexp(every[tile.row], tile_all)
            tile_positive = torch.logaddexp(positives[tile.row], tile_positive)
        every[tile.row], positives[tile.row] = tile_all, tile_positive
    return results[0], results[1]


def _gradient(inputs: Inputs, results: Results, upstream: Results, plan: Plan, tile: Tile) -> Tensor:
    similarity, positive = _scores(inputs, plan, tile)
    all_lse, positive_lse, grad_all, grad_positive = (t[tile.row] for t in (*results, *upstream))
    grad = (similarity - all_lse.unsqueeze(-1)).exp_().mul_(grad_all.unsqueeze(-1))
    _add_positive_grad(grad, similarity, positive, positive_lse, grad_positive)
    return grad
