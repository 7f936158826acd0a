"""Log-sum-exps over a vocabulary and the logits of targets, with as few [N, V] tensors as possible."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .numerics import accumulation_dtype, add_product, relative_to_largest, without_autocast

# Logits that are held in float32 at a time: 128 MiB of them.
_CHUNK = 2**25


def lse_and_pick(logits: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Row-wise log-sum-exp of logits, and the logit of one column per row.

    Saves only the logits for backward, which makes one gradient of their size and dtype. ``logsumexp`` and
    ``gather`` one by one would make three.

    Args:
        logits: [N, V].
        column: int64 [N].

    Returns:
        Both [N], float32 (float64 for float64).
    """
    result: tuple[Tensor, Tensor] = _LseAndPick.apply(logits, column)  # type: ignore[no-untyped-call]
    return result


def linear_lse_and_pick(
    features: Tensor, weight: Tensor, bias: Tensor | None, column: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`lse_and_pick` of ``features @ weight.T + bias``, without an [N, V] tensor.

    Computes the logits a slice of the vocabulary at a time, and again in backward: a third more work.
    Products have the dtype of the inputs, as in fairseq's own projection.

    Args:
        features: [N, d].
        weight: [V, d].
        bias: [V] or None.
        column: int64 [N].
    """
    result: tuple[Tensor, Tensor] = _LinearLseAndPick.apply(  # type: ignore[no-untyped-call]
        features, weight, bias, column
    )
    return result


class _LseAndPick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        dtype = accumulation_dtype(logits.dtype)
        lse = logits.new_empty(len(logits), dtype=dtype)
        for rows in _slices(len(logits), logits.size(1)):
            torch.logsumexp(logits[rows].to(dtype), -1, out=lse[rows])
        ctx.save_for_backward(logits, column, lse)
        return lse, logits.gather(-1, column.unsqueeze(-1)).squeeze(-1).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_lse: Tensor, grad_picked: Tensor) -> tuple[Tensor, None]:
        logits, column, lse = ctx.saved_tensors
        grad = torch.empty_like(logits)
        for rows in _slices(len(logits), logits.size(1)):
            part = (logits[rows] - lse[rows].unsqueeze(-1)).exp_().mul_(grad_lse[rows].unsqueeze(-1))
            part.scatter_add_(-1, column[rows].unsqueeze(-1), grad_picked[rows].unsqueeze(-1))
            grad[rows] = part
        return grad, None


class _LinearLseAndPick(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, column: Tensor
    ) -> tuple[Tensor, Tensor]:
        dtype = accumulation_dtype(features.dtype)
        lse = features.new_full((len(features),), -torch.inf, dtype=dtype)
        picked = torch.zeros_like(lse)
        for types in _slices(len(weight), len(features)):
            logits = _logits(features, weight, bias, types)
            lse = torch.logaddexp(lse, logits.logsumexp(-1))
            index, inside = _index_within(column, types)
            picked += logits.gather(-1, index).squeeze(-1).masked_fill(~inside, 0.0)
        ctx.save_for_backward(features, weight, bias, column, lse)
        return lse, picked

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_lse: Tensor, grad_picked: Tensor) -> tuple[Tensor | None, ...]:
        with without_autocast(grad_lse.device.type):
            return (*_linear_gradients(ctx.saved_tensors, ctx.needs_input_grad, grad_lse, grad_picked), None)


def _linear_gradients(
    saved: tuple[Tensor, ...], wanted: tuple[bool, ...], grad_lse: Tensor, grad_picked: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients in features, weight and bias; None where they are not wanted."""
    features, weight, bias, column, lse = saved
    (grad_lse, grad_picked), unit = relative_to_largest(grad_lse, grad_picked)
    grad_features = torch.zeros_like(features, dtype=lse.dtype) if wanted[0] else None
    grad_weight, grad_bias = (
        torch.empty_like(t) if want else None for t, want in zip(saved[1:3], wanted[1:])
    )
    for types in _slices(len(weight), len(features)):
        logits = _logits(features, weight, bias, types)
        grad = logits.sub_(lse.unsqueeze(-1)).exp_().mul_(grad_lse.unsqueeze(-1))
        index, inside = _index_within(column, types)
        grad.scatter_add_(-1, index, grad_picked.masked_fill(~inside, 0.0).unsqueeze(-1))
        if grad_bias is not None:
            grad_bias[types] = grad.sum(0).mul_(unit)
        # Summed in float32: in float16 the gradients of a frequent type would add up to infinity.
        if grad_features is not None:
            add_product(grad_features.unsqueeze(0), grad.unsqueeze(0), weight[types].unsqueeze(0))
        if grad_weight is not None:
            part = torch.zeros_like(weight[types], dtype=lse.dtype)
            add_product(part.unsqueeze(0), grad.t().unsqueeze(0), features.unsqueeze(0))
            grad_weight[types] = part.mul_(unit)
    if grad_features is not None:
        grad_features = grad_features.mul_(unit).to(features.dtype)
    return grad_features, grad_weight, grad_bias


def _slices(count: int, width: int) -> Iterator[slice]:
    """Slices of ``count`` rows of ``width`` numbers, each as large as a chunk allows."""
    step = max(1, _CHUNK // max(1, width))
    return (slice(begin, min(begin + step, count)) for begin in range(0, count, step))


def _logits(features: Tensor, weight: Tensor, bias: Tensor | None, types: slice) -> Tensor:
    """The logits of a slice of the vocabulary, in the dtype of sums."""
    logits = functional.linear(features, weight[types], None if bias is None else bias[types])
    return logits.to(accumulation_dtype(features.dtype))


def _index_within(column: Tensor, types: slice) -> tuple[Tensor, Tensor]:
    """The index of each column within the slice ``types``, [N, 1], and whether it is in there, [N]."""
    inside = (column >= types.start) & (column < types.stop)
    return (column - types.start).clamp(0, types.stop - types.start - 1).unsqueeze(-1), inside
