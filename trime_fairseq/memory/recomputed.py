"""The autograd function of the implementations that recompute similarities in backward."""

from typing import Any, Callable, Optional, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .problem import Inputs, Plan

# A and P of the objective, [N] each.
Results = Tuple[Tensor, Tensor]
Forward = Callable[[Inputs, Plan], Results]
# Inputs, results (+inf where nothing is seen), the gradients in them, the plan, and whether queries and keys
# want a gradient; the gradients of queries and keys in the dtype of the sums.
Backward = Callable[
    [Inputs, Results, Results, Plan, Tuple[bool, bool]], Tuple[Optional[Tensor], Optional[Tensor]]
]


def recomputed_lse(inputs: Inputs, plan: Plan, forward: Forward, backward: Backward) -> Results:
    """The results of ``forward``; differentiable once, by ``backward``, if anything wants a gradient."""
    if not (torch.is_grad_enabled() and (inputs.queries.requires_grad or inputs.keys.requires_grad)):
        return forward(inputs, plan)
    result: Results = _RecomputedLSE.apply(*inputs, plan, forward, backward)  # type: ignore[no-untyped-call]
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
        forward: Forward,
        backward: Backward,
    ) -> Results:
        inputs = Inputs(queries, keys, query_targets, key_tokens)
        results = forward(inputs, plan)
        ctx.save_for_backward(*inputs, *results)
        ctx.plan, ctx.compute = plan, backward
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_all: Tensor, grad_positive: Tensor) -> Tuple[Any, ...]:
        *tensors, all_lse, positive_lse = ctx.saved_tensors
        # exp(-inf - inf) = 0: a row that sees nothing has no gradient, where -inf - -inf is NaN.
        all_lse, positive_lse = (
            lse.masked_fill(lse == -torch.inf, torch.inf) for lse in (all_lse, positive_lse)
        )
        grads = ctx.compute(
            Inputs(*tensors),
            (all_lse, positive_lse),
            (grad_all, grad_positive),
            ctx.plan,
            ctx.needs_input_grad[:2],
        )
        dtype = tensors[0].dtype
        return (*(None if grad is None else grad.to(dtype) for grad in grads), *[None] * 5)


def zero_grads(
    inputs: Inputs, wanted: Tuple[bool, bool], dtype: torch.dtype
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    """Sums for the gradients of queries and keys, where they are wanted."""
    queries, keys = (
        torch.zeros_like(tensor, dtype=dtype, memory_format=torch.contiguous_format) if want else None
        for tensor, want in zip(inputs, wanted)
    )
    return queries, keys
