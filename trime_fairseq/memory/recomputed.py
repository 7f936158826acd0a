"""The autograd function of the implementations that recompute similarities in backward."""

from typing import Any, Callable, NamedTuple, Optional, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .numerics import add_product, relative_to_largest, without_autocast
from .problem import Inputs, Plan, accumulation_dtype, in_parts
from .tiling import Tile

# A and P of the objective, [N] each.
Results = Tuple[Tensor, Tensor]


class Implementation(NamedTuple):
    """What differs between them.

    Attributes:
        forward: both log-sum-exps of the inputs [N, ...] and [M, ...].
        gradient: the gradient in the scaled similarities of a tile, [parts, queries, keys], in the dtype of
            the inputs or of the sums, from inputs, results (+inf where nothing is seen) and the gradients
            in the results, all of them cut into parts [parts, rows per part, ...]::

                G = grad_all * exp(sim - all_lse) + [positive] * grad_positive * exp(sim - positive_lse)
    """

    forward: Callable[[Inputs, Plan], Results]
    gradient: Callable[[Inputs, Results, Results, Plan, Tile], Tensor]


def recomputed_lse(inputs: Inputs, plan: Plan, implementation: Implementation) -> Results:
    """The results; differentiable once if anything wants a gradient."""
    if not (torch.is_grad_enabled() and (inputs.queries.requires_grad or inputs.keys.requires_grad)):
        return implementation.forward(inputs, plan)
    result: Results = _RecomputedLSE.apply(*inputs, plan, implementation)  # type: ignore[no-untyped-call]
    return result


class _RecomputedLSE(torch.autograd.Function):
    """Saves only its inputs and the two results."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        query_targets: Tensor,
        key_tokens: Tensor,
        plan: Plan,
        implementation: Implementation,
    ) -> Results:
        inputs = Inputs(queries, keys, query_targets, key_tokens)
        results = implementation.forward(inputs, plan)
        ctx.save_for_backward(*inputs, *results)
        ctx.plan, ctx.implementation = plan, implementation
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_all: Tensor, grad_positive: Tensor) -> Tuple[Any, ...]:
        *tensors, all_lse, positive_lse = ctx.saved_tensors
        # exp(-inf - inf) = 0: a row that sees nothing has no gradient, where -inf - -inf is NaN.
        results = tuple(lse.masked_fill(lse == -torch.inf, torch.inf) for lse in (all_lse, positive_lse))
        upstream = (grad_all, grad_positive)
        with without_autocast(all_lse.device.type):
            grads = _gradients(
                Inputs(*tensors), results, upstream, ctx.plan, ctx.implementation, ctx.needs_input_grad[:2]
            )
        return (*grads, *[None] * 4)


def _gradients(
    inputs: Inputs,
    results: Results,
    upstream: Results,
    plan: Plan,
    implementation: Implementation,
    wanted: Tuple[bool, bool],
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    """Those of queries and keys, in their dtype, where they are wanted."""
    parts, dtype = plan.visibility.repeats, inputs.queries.dtype
    relative, unit = relative_to_largest(*upstream)
    totals = [
        torch.zeros_like(t, dtype=accumulation_dtype(dtype), memory_format=torch.contiguous_format)
        if want
        else None
        for t, want in zip(inputs, wanted)
    ]
    grad_queries, grad_keys = (None if t is None else in_parts(parts, t)[0] for t in totals)
    cut = in_parts(parts, *inputs, *results, *relative)
    inputs, results, upstream = Inputs(*cut[:4]), (cut[4], cut[5]), (cut[6], cut[7])
    for tile in plan.visibility.tiles(inputs.keys.size(1), plan.size):
        row, (shared, column) = tile.row, tile.column
        gradient = implementation.gradient(inputs, results, upstream, plan, tile)
        if grad_queries is not None:
            add_product(grad_queries[row], gradient, inputs.keys[tile.column])
        begin, end = max(column.start, plan.key_grad[0]), min(column.stop, plan.key_grad[1])
        if grad_keys is not None and begin < end:
            part = gradient[..., begin - column.start : end - column.start]
            add_product(grad_keys[shared, begin:end], part.transpose(1, 2), inputs.queries[row])
    queries, keys = (None if t is None else t.mul_(unit * plan.scale).to(dtype) for t in totals)
    return queries, keys
