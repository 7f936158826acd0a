"""The two log-sum-exps over a memory that the TRIME objective needs, without the N x M matrix."""

import math
from typing import Any, Iterator, List, NamedTuple, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .visibility import Visibility

IMPLEMENTATIONS = ("auto", "chunked", "naive")

# (queries, keys) of a tile: on a CPU its similarities stay in the second-level cache, on an
# accelerator it is large enough to hide the launch of its kernels.
_TILE = {"cpu": (256, 2048), "cuda": (1024, 8192)}


def memory_lse(
    queries: Tensor,
    keys: Tensor,
    query_targets: Tensor,
    key_tokens: Tensor,
    visibility: Visibility,
    scale: float,
    *,
    impl: str = "auto",
    tile: Tuple[int, int] = (0, 0),
) -> Tuple[Tensor, Tensor]:
    """Log-sum-exp of the scaled similarities to all visible keys, and to those with the target's token.

    Equal to, with ``sim = scale * queries @ keys.T`` set to -inf where ``visibility`` hides a key::

        all_lse = sim.logsumexp(1)                                            # A in the objective
        positive_lse = sim.masked_fill(key_tokens != query_targets[:, None], -inf).logsumexp(1)    # P

    but the chunked implementation holds one tile of ``sim`` at a time, recomputes it in backward and
    never computes tiles that no query may see. Sums are float32 (float64 for float64 inputs) whatever
    the dtype of the inputs. Rows without a visible (or positive) key give -inf, and zero gradients.

    Args:
        queries: g(c) of the scored tokens, [N, d], floating point.
        keys: g(c_j) of the memory, [M, d], of the same dtype.
        query_targets: token that follows each query, int64 [N].
        key_tokens: token that followed each key, int64 [M].
        visibility: which keys each query sees; N rows.
        scale: factor of the dot products, 1 / (sqrt(d) * tau).
        impl: ``chunked``, ``naive`` (the two lines above: for tests and baselines) or ``auto``.
        tile: queries and keys per tile of the chunked implementation; (0, 0) chooses by device.

    Returns:
        ``all_lse`` and ``positive_lse``, float32 (float64 for float64 inputs) of shape [N].
        Differentiable once, with respect to ``queries`` and ``keys``.

    Raises:
        ValueError: if shapes or dtypes do not fit, or ``impl`` is unknown.
    """
    _check(queries, keys, query_targets, key_tokens, visibility, impl)
    # Under autocast the products below would be rounded to half precision.
    with torch.autocast(device_type=queries.device.type, enabled=False):
        if impl == "naive":
            return _naive(queries, keys, query_targets, key_tokens, visibility, scale)
        default = _TILE.get(queries.device.type, _TILE["cuda"])
        size = (tile[0] or default[0], tile[1] or default[1])
        result: Tuple[Tensor, Tensor] = _ChunkedLSE.apply(  # type: ignore[no-untyped-call]
            queries, keys, query_targets, key_tokens, visibility, scale, size
        )
        return result


def _check(
    queries: Tensor,
    keys: Tensor,
    query_targets: Tensor,
    key_tokens: Tensor,
    visibility: Visibility,
    impl: str,
) -> None:
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"unknown impl {impl!r}: one of {', '.join(IMPLEMENTATIONS)}")
    if queries.dim() != 2 or keys.dim() != 2 or queries.size(1) != keys.size(1):
        raise ValueError(
            f"queries [N, d] and keys [M, d] expected, got {tuple(queries.shape)} and {tuple(keys.shape)}"
        )
    if queries.dtype != keys.dtype or not queries.is_floating_point():
        raise ValueError(f"queries are {queries.dtype}, keys are {keys.dtype}")
    if query_targets.shape != queries.shape[:1] or key_tokens.shape != keys.shape[:1]:
        raise ValueError("one target per query and one token per key expected")
    if keys.size(0) % visibility.repeats:
        raise ValueError(f"{keys.size(0)} keys do not divide into {visibility.repeats} parts")
    if visibility.num_queries != queries.size(0):
        raise ValueError(f"visibility has {visibility.num_queries} rows for {queries.size(0)} queries")


def _accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _naive(
    queries: Tensor,
    keys: Tensor,
    query_targets: Tensor,
    key_tokens: Tensor,
    visibility: Visibility,
    scale: float,
) -> Tuple[Tensor, Tensor]:
    dtype = _accumulation_dtype(queries.dtype)
    similarity = scale * (queries.to(dtype) @ keys.to(dtype).t())
    hidden = visibility.dense(keys.size(0), queries.device)
    negative = hidden | (key_tokens != query_targets.unsqueeze(1))
    return _masked_lse(similarity, hidden), _masked_lse(similarity, negative)


def _masked_lse(similarity: Tensor, hidden: Tensor) -> Tensor:
    if similarity.size(1) == 0:
        return similarity.new_full((similarity.size(0),), -math.inf)
    nothing = hidden.all(1)
    # The gradient of logsumexp over nothing but -inf is NaN, also where its result is not used.
    hidden = hidden & ~nothing.unsqueeze(1)
    lse = similarity.masked_fill(hidden, -math.inf).logsumexp(1)
    return lse.masked_fill(nothing, -math.inf)


def _positive_lse(similarity: Tensor, positive: Tensor) -> Tensor:
    """Log-sum-exp over the last dimension of the entries marked ``positive``; overwrites ``similarity``."""
    if similarity.device.type != "cpu":
        return similarity.masked_fill_(~positive, -math.inf).logsumexp(-1)
    # About one pair in a hundred is positive. On a CPU gathering them costs a third of another
    # exponential over the whole tile; on an accelerator nonzero() would wait for the device.
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
    if similarity.device.type != "cpu":
        similarity.masked_fill_(~positive, -math.inf).sub_(positive_lse.unsqueeze(-1)).exp_()
        grad.addcmul_(similarity, upstream.unsqueeze(-1))
        return
    place = positive.view(-1).nonzero().squeeze(1)
    row = place.div(positive.size(-1), rounding_mode="floor")
    value = similarity.view(-1)[place].sub_(positive_lse.reshape(-1)[row]).exp_()
    grad.view(-1)[place] += value.mul_(upstream.reshape(-1)[row])


class _Tile(NamedTuple):
    """Parts x queries x keys whose similarities are held at the same time."""

    parts: slice
    rows: slice
    columns: slice
    masked: bool


def _tiles(visibility: Visibility, keys_per_part: int, size: Tuple[int, int]) -> Iterator[_Tile]:
    for block in visibility.blocks(keys_per_part, *size):
        for begin, end, masked in block.tiles:
            # Parts that are smaller than a tile share one.
            step = max(1, size[0] * size[1] // ((block.end - block.begin) * (end - begin)))
            for part in range(0, visibility.repeats, step):
                parts = slice(part, min(part + step, visibility.repeats))
                yield _Tile(parts, slice(block.begin, block.end), slice(begin, end), masked)


def _similarity(tile: _Tile, query: Tensor, key: Tensor, visibility: Visibility) -> Tensor:
    """[parts, queries, keys]; -inf where hidden."""
    similarity = torch.bmm(query, key.transpose(1, 2))
    if tile.masked:
        hidden = visibility.hidden(tile.rows, tile.columns, query.device)
        similarity.masked_fill_(hidden, -math.inf)
    return similarity


class _ChunkedLSE(torch.autograd.Function):
    """See :func:`memory_lse`. Saves only its inputs and the two results."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        query_targets: Tensor,
        key_tokens: Tensor,
        visibility: Visibility,
        scale: float,
        size: Tuple[int, int],
    ) -> Tuple[Tensor, Tensor]:
        dtype = _accumulation_dtype(queries.dtype)
        all_lse = queries.new_full((queries.size(0),), -math.inf, dtype=dtype)
        positive_lse = all_lse.clone()
        ctx.save_for_backward(queries, keys, query_targets, key_tokens, all_lse, positive_lse)
        ctx.visibility, ctx.scale, ctx.size = visibility, scale, size
        queries, keys, query_targets, key_tokens, every, positives = _in_parts(
            visibility.repeats, queries, keys, query_targets, key_tokens, all_lse, positive_lse
        )
        for tile in _tiles(visibility, keys.size(1), size):
            row, column = (tile.parts, tile.rows), (tile.parts, tile.columns)
            query = queries[row].to(dtype) * scale
            similarity = _similarity(tile, query, keys[column].to(dtype), visibility)
            every[row] = torch.logaddexp(every[row], similarity.logsumexp(-1))
            positive = key_tokens[column].unsqueeze(1) == query_targets[row].unsqueeze(-1)
            positives[row] = torch.logaddexp(positives[row], _positive_lse(similarity, positive))
        return all_lse, positive_lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_all: Tensor, grad_positive: Tensor) -> Tuple[Any, ...]:
        *inputs, all_lse, positive_lse = ctx.saved_tensors
        visibility, scale, dtype = ctx.visibility, ctx.scale, all_lse.dtype
        # exp(-inf - inf) = 0: a row that sees nothing has no gradient, where -inf - -inf is NaN.
        all_lse = all_lse.masked_fill(all_lse == -math.inf, math.inf)
        positive_lse = positive_lse.masked_fill(positive_lse == -math.inf, math.inf)
        grads = [
            torch.zeros_like(tensor, dtype=dtype, memory_format=torch.contiguous_format) if wanted else None
            for tensor, wanted in zip(inputs[:2], ctx.needs_input_grad)
        ]
        queries, keys, query_targets, key_tokens, all_lse, positive_lse, grad_all, grad_positive = _in_parts(
            visibility.repeats, *inputs, all_lse, positive_lse, grad_all, grad_positive
        )
        grad_queries, grad_keys = (
            None if grad is None else _in_parts(visibility.repeats, grad)[0] for grad in grads
        )
        for tile in _tiles(visibility, keys.size(1), ctx.size):
            row, column = (tile.parts, tile.rows), (tile.parts, tile.columns)
            query, key = queries[row].to(dtype) * scale, keys[column].to(dtype)
            similarity = _similarity(tile, query, key, visibility)
            grad = (similarity - all_lse[row].unsqueeze(-1)).exp_().mul_(grad_all[row].unsqueeze(-1))
            positive = key_tokens[column].unsqueeze(1) == query_targets[row].unsqueeze(-1)
            _add_positive_grad(grad, similarity, positive, positive_lse[row], grad_positive[row])
            if grad_queries is not None:
                grad_queries[row].baddbmm_(grad, key, alpha=scale)
            if grad_keys is not None:
                grad_keys[column].baddbmm_(grad.transpose(1, 2), query)
        return (
            *(None if grad is None else grad.to(queries.dtype) for grad in grads),
            *[None] * 5,
        )


def _in_parts(repeats: int, *tensors: Tensor) -> List[Tensor]:
    """Views of shape [repeats, rows per part, ...]."""
    return [t.reshape(repeats, t.size(0) // repeats, *t.shape[1:]) for t in tensors]
