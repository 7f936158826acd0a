"""The chunked implementation of :func:`trime_fairseq.memory.memory_lse`."""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor

from .problem import Inputs, Plan, accumulation_dtype, in_parts
from .recomputed import Results, recomputed_lse, zero_grads
from .tiling import Tile
from .visibility import Visibility


def chunked_lse(inputs: Inputs, plan: Plan) -> Results:
    """See :func:`trime_fairseq.memory.memory_lse`."""
    return recomputed_lse(inputs, plan, _forward, _backward)


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


def _similarity(tile: Tile, query: Tensor, key: Tensor, visibility: Visibility) -> Tensor:
    """[parts, queries, keys]; -inf where hidden."""
    similarity = torch.bmm(query, key.transpose(1, 2))
    if tile.masked:
        hidden = visibility.hidden(tile.row[1], tile.column[1], query.device)
        similarity.masked_fill_(hidden, -math.inf)
    return similarity


def _forward(inputs: Inputs, plan: Plan) -> Results:
    queries, keys, query_targets, key_tokens = inputs
    visibility = plan.visibility
    dtype = accumulation_dtype(queries.dtype)
    all_lse, positive_lse = queries.new_full((2, queries.size(0)), -math.inf, dtype=dtype)
    queries, keys, query_targets, key_tokens, every, positives = in_parts(
        visibility.repeats, queries, keys, query_targets, key_tokens, all_lse, positive_lse
    )
    for tile in visibility.tiles(keys.size(1), plan.size):
        row, column = tile.row, tile.column
        query, key = queries[row].to(dtype) * plan.scale, keys[column].to(dtype)
        similarity = _similarity(tile, query, key, visibility)
        tile_all = similarity.logsumexp(-1)
        positive = key_tokens[column].unsqueeze(1) == query_targets[row].unsqueeze(-1)
        tile_positive = _positive_lse(similarity, positive)
        if not tile.first:
            tile_all = torch.logaddexp(every[row], tile_all)
            tile_positive = torch.logaddexp(positives[row], tile_positive)
        every[row], positives[row] = tile_all, tile_positive
    return all_lse, positive_lse


def _backward(
    inputs: Inputs, results: Results, upstream: Results, plan: Plan, wanted: Tuple[bool, bool]
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    visibility, scale, size, key_grad = plan
    dtype = results[0].dtype
    grads = zero_grads(inputs, wanted, dtype)
    queries, keys, query_targets, key_tokens, all_lse, positive_lse, grad_all, grad_positive = in_parts(
        visibility.repeats, *inputs, *results, *upstream
    )
    grad_queries, grad_keys = (
        None if grad is None else in_parts(visibility.repeats, grad)[0] for grad in grads
    )
    for tile in visibility.tiles(keys.size(1), size):
        row, column = tile.row, tile.column
        query, key = queries[row].to(dtype) * scale, keys[column].to(dtype)
        similarity = _similarity(tile, query, key, visibility)
        grad = (similarity - all_lse[row].unsqueeze(-1)).exp_().mul_(grad_all[row].unsqueeze(-1))
        positive = key_tokens[column].unsqueeze(1) == query_targets[row].unsqueeze(-1)
        _add_positive_grad(grad, similarity, positive, positive_lse[row], grad_positive[row])
        if grad_queries is not None:
            grad_queries[row].baddbmm_(grad, key, alpha=scale)
        if grad_keys is None:
            continue
        begin, end = max(column[1].start, key_grad[0]), min(column[1].stop, key_grad[1])
        if begin < end:
            part = slice(begin - column[1].start, end - column[1].start)
            grad_keys[column[0], begin:end].baddbmm_(grad[..., part].transpose(1, 2), query)
    return grads
