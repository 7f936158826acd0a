"""The two log-sum-exps over the most similar visible keys of each query (``trime_mt_loss``)."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .autograd import LseInputs
from .lse import check_inputs, memory_lse
from .nearest_keys import find_nearest, squared_lengths
from .numerics import accumulation_dtype, without_autocast
from .visibility import Visibility

# Names of ``metric``.
METRICS = ("ip", "l2")


def nearest_lse(
    queries: Tensor,
    keys: Tensor,
    query_targets: Tensor,
    key_tokens: Tensor,
    visibility: Visibility,
    scale: float,
    *,
    topk: int | None = None,
    metric: str = "ip",
    key_grad: tuple[int, int] | None = None,
    tile: tuple[int, int] = (0, 0),
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp over the ``topk`` visible keys most similar to each query, and over those among them that
    have the target's token.

    The similarity s is <q, k> (``ip``) or -\\|q - k\\|^2 (``l2``), times ``scale``::

        T_i = the topk largest s_ij over the visible j;    all_lse_i = logsumexp of s_ij over T_i
        positive_lse_i = the same over the j in T_i with key_tokens[j] = query_targets[i]

    A query that sees fewer than ``topk`` keys uses those it sees. One that sees none has -inf and no
    gradient. Which keys are chosen is a constant of the gradient; of equal ones any may be.

    One tile of similarities is held at a time, and the chosen ones, [N, topk], are kept for backward. There a
    gradient is a weighted sum of the chosen rows: no product of all pairs is computed again. Similarities and
    all that follows are float32 (float64 for float64), whatever the dtype of the inputs.

    Args:
        queries, keys, query_targets, key_tokens, visibility, scale, key_grad, tile: as of
            :func:`trime_fairseq.memory.memory_lse`.
        topk: the most keys of a query; None: all that it sees.
        metric: one of :data:`METRICS`.

    Returns:
        ``all_lse`` and ``positive_lse``, float32 (float64 for float64 inputs) of shape [N].
        Differentiable once, with respect to ``queries`` and ``keys``.

    Raises:
        ValueError: as of :func:`memory_lse`; if ``topk`` is not positive, or the metric unknown.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}: one of {', '.join(METRICS)}")
    if topk is not None and topk < 1:
        raise ValueError(f"`topk` must be positive, not {topk}")
    check_inputs(queries, keys, query_targets, key_tokens, visibility, key_grad)
    tensors = (queries, keys, query_targets, key_tokens)
    with without_autocast(queries.device.type):
        if topk is None:
            if metric == "ip":
                return memory_lse(*tensors, visibility, scale, key_grad=key_grad, tile=tile)
            return _all_by_distance(*tensors, visibility, scale, key_grad, tile)
        inputs = LseInputs(*tensors, visibility, scale, key_grad or (0, keys.size(0)), tile)
        lses: tuple[Tensor, Tensor] = _NearestLSE.apply(  # type: ignore[no-untyped-call]
            queries, keys, inputs, topk, metric
        )
        return lses


def _all_by_distance(
    queries: Tensor,
    keys: Tensor,
    query_targets: Tensor,
    key_tokens: Tensor,
    visibility: Visibility,
    scale: float,
    key_grad: tuple[int, int] | None,
    tile: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Without ``topk``, by inner products: -\\|q - k\\|^2 = <[2q, -1], [k, \\|k\\|^2]> - \\|q\\|^2."""
    dtype = accumulation_dtype(queries.dtype)
    queries, keys = queries.to(dtype), keys.to(dtype)
    longer_queries = torch.cat([2 * queries, queries.new_full((queries.size(0), 1), -1.0)], dim=1)
    longer_keys = torch.cat([keys, squared_lengths(keys).unsqueeze(1)], dim=1)
    lses = memory_lse(
        longer_queries,
        longer_keys,
        query_targets,
        key_tokens,
        visibility,
        scale,
        key_grad=key_grad,
        tile=tile,
    )
    of_query = scale * squared_lengths(queries)
    return lses[0] - of_query, lses[1] - of_query


class _NearestLSE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, inputs: LseInputs, topk: int, metric: str
    ) -> tuple[Tensor, Tensor]:
        values, indices = find_nearest(inputs, topk, metric)
        positive = inputs.key_tokens[indices] == inputs.query_targets.unsqueeze(1)
        all_lse = values.logsumexp(-1) if values.size(1) else values.new_full(values.shape[:1], -math.inf)
        of_positives = values.masked_fill(~positive, -math.inf)
        positive_lse = of_positives.logsumexp(-1) if values.size(1) else all_lse.clone()
        ctx.save_for_backward(queries, keys, values, indices, positive, all_lse, positive_lse)
        ctx.scale, ctx.key_grad, ctx.metric = inputs.scale, inputs.key_grad, metric
        return all_lse, positive_lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_all: Tensor, grad_positive: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, indices, positive, *lses = ctx.saved_tensors
        # exp(-inf - inf) = 0: a row that sees nothing has no gradient, where -inf - -inf is NaN.
        all_lse, positive_lse = (lse.masked_fill(lse == -math.inf, math.inf).unsqueeze(1) for lse in lses)
        weights = (values - all_lse).exp_().mul_(grad_all.unsqueeze(1))
        of_positives = (values - positive_lse).exp_().mul_(grad_positive.unsqueeze(1))
        weights += of_positives.masked_fill_(~positive, 0.0)
        weights *= ctx.scale if ctx.metric == "ip" else 2 * ctx.scale
        queries_wanted, keys_wanted, *_ = ctx.needs_input_grad
        with without_autocast(values.device.type):
            pairs = queries, keys, indices, weights
            return (
                _of_queries(*pairs, ctx.metric) if queries_wanted else None,
                _of_keys(*pairs, ctx.key_grad, ctx.metric) if keys_wanted else None,
                *[None] * 3,
            )


def _of_queries(queries: Tensor, keys: Tensor, indices: Tensor, weights: Tensor, metric: str) -> Tensor:
    """sum_j w_ij k_j, or by distance sum_j w_ij (k_j - q_i), in the dtype of the queries.

    Args:
        indices, weights: of the chosen pairs, [N, k].
    """
    if not weights.numel():
        return torch.zeros_like(queries)
    # Without the chosen rows themselves, [N, k, d].
    grad = functional.embedding_bag(indices, keys.to(weights.dtype), mode="sum", per_sample_weights=weights)
    if metric == "l2":
        grad -= queries * weights.sum(1, keepdim=True)
    return grad.to(queries.dtype)


def _of_keys(
    queries: Tensor, keys: Tensor, indices: Tensor, weights: Tensor, key_grad: tuple[int, int], metric: str
) -> Tensor:
    """sum_i w_ij q_i, or by distance sum_i w_ij (q_i - k_j), of the keys in ``key_grad``; 0 of all others."""
    grad, (begin, end) = torch.zeros_like(keys), key_grad
    count = end - begin
    if not weights.numel() or not count:
        return grad
    places = indices - begin
    if count < keys.size(0):
        weights = weights.masked_fill((places < 0) | (places >= count), 0.0)
        # Pairs without a gradient go to all keys alike: a single one would get them one after the other.
        places = places.remainder(count)
    # Pairs by key, so that no two are added to the same row at once: the sum is the same in every run.
    places, pairs = places.flatten().sort()
    rows = pairs.div(weights.size(1), rounding_mode="floor")
    weights = weights.flatten()[pairs]
    firsts = torch.searchsorted(places, torch.arange(count, device=places.device))

    def sums(vectors: Tensor) -> Tensor:
        return functional.embedding_bag(rows, vectors, firsts, mode="sum", per_sample_weights=weights)

    total = sums(queries.to(weights.dtype))
    if metric == "l2":
        total -= keys[begin:end] * sums(weights.new_ones(queries.size(0), 1))
    grad[begin:end] = total
    return grad
