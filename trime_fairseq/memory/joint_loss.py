"""The loss of a linear token softmax and memories, whose gradient is made in the same pass."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .numerics import (
    LARGEST_GRADIENT,
    accumulation_dtype,
    add_product,
    autocast_dtype,
    without_autocast,
)

# Logits that are held at a time: on a CPU as many as its caches hold, elsewhere 128 MiB of them.
_CHUNK, _CHUNK_OF_CPU = 2**25, 2**21


def linear_joint_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    all_lse: Tensor,
    positive_lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The summed TRIME loss with the logits ``features @ weight.T + bias``, and its parts per token.

    The same as :func:`trime_fairseq.memory.linear_token_scores` and :func:`trime_log_prob`, where both A and
    P are known before the token softmax. Then the gradient of a logit is known as soon as the logit is::

        exp(l_v - logaddexp(a, A)) - [v = target] exp(b - logaddexp(b, P))

    so the products of a slice of tokens, forward and backward, follow each other. No tensor [N, V] is made,
    and no logit computed twice.

    Args:
        features: decoder output, [N, d].
        weight: output embeddings, [V, d].
        bias: [V] or None.
        target: int64 [N].
        all_lse, positive_lse: A and P, [N]; -inf without memory, where the loss is cross-entropy.

    Returns:
        The loss in nats, a scalar, differentiable once with respect to all tensors; a = logsumexp of the
        logits and b = logit of the target, [N], without gradient. float32 (float64 for float64).
    """
    dtype = autocast_dtype(features.device.type) or features.dtype
    features, weight = features.to(dtype), weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    with without_autocast(features.device.type):
        results: tuple[Tensor, Tensor, Tensor] = _LinearJointLoss.apply(  # type: ignore[no-untyped-call]
            features, weight, bias, all_lse, positive_lse, target, torch.is_grad_enabled()
        )
        return results


class _LinearJointLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        all_lse: Tensor,
        positive_lse: Tensor,
        target: Tensor,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = features, weight, bias
        wanted = [with_gradient and want for want in ctx.needs_input_grad[:3]]
        dtype = accumulation_dtype(features.dtype)
        totals = [
            torch.zeros_like(t, dtype=dtype, memory_format=torch.contiguous_format)
            if t is not None and want
            else None
            for t, want in zip(inputs, wanted)
        ]
        token_lse, target_logit, joint, of_target = features.new_empty(4, len(features), dtype=dtype).unbind()
        # Small gradients of single logits would vanish in float16.
        unit = LARGEST_GRADIENT if features.dtype == torch.float16 else 1.0
        for rows in _slices(len(features), len(weight), features.device.type):
            logits = functional.linear(features[rows], weight, bias).to(dtype)
            column = target[rows].unsqueeze(1)
            target_logit[rows] = logits.gather(1, column).squeeze(1)
            highest = logits.amax(1)
            exponentials = logits.sub_(highest.unsqueeze(1)).exp_()
            token_lse[rows] = exponentials.sum(1).log_().add_(highest)
            joint[rows] = torch.logaddexp(token_lse[rows], all_lse[rows])
            of_target[rows] = torch.logaddexp(target_logit[rows], positive_lse[rows])
            if any(wanted):
                grad = exponentials.mul_((highest - joint[rows]).exp_().mul_(unit).unsqueeze(1))
                of_column = (target_logit[rows] - of_target[rows]).exp_().mul_(-unit)
                grad.scatter_add_(1, column, of_column.unsqueeze(1))
                _add_gradients(totals, grad, features[rows], weight, rows)
        totals = [None if total is None else total.div_(unit) for total in totals]
        grad_all, grad_positive = (all_lse - joint).exp_(), (positive_lse - of_target).exp_().neg_()
        ctx.save_for_backward(*totals, grad_all, grad_positive)
        ctx.dtypes = [None if t is None else t.dtype for t in inputs]
        ctx.mark_non_differentiable(token_lse, target_logit)
        return (joint - of_target).sum(), token_lse, target_logit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        *totals, grad_all, grad_positive = ctx.saved_tensors
        gradients = [
            None if total is None else (total * grad).to(dtype) for total, dtype in zip(totals, ctx.dtypes)
        ]
        return (*gradients, grad_all * grad, grad_positive * grad, None, None)


def _add_gradients(
    totals: list[Tensor | None], grad: Tensor, features: Tensor, weight: Tensor, rows: slice
) -> None:
    """Adds those in features, weight and bias of a slice of tokens, from the gradient of its logits."""
    grad_features, grad_weight, grad_bias = totals
    if grad_features is not None:
        add_product(grad_features[None, rows], grad.unsqueeze(0), weight.unsqueeze(0))
    if grad_weight is not None:
        add_product(grad_weight.unsqueeze(0), grad.t().unsqueeze(0), features.unsqueeze(0))
    if grad_bias is not None:
        grad_bias += grad.sum(0)


def _slices(count: int, width: int, device_type: str) -> Iterator[slice]:
    """Slices of ``count`` tokens with logits of as many types as ``width``."""
    step = max(1, (_CHUNK_OF_CPU if device_type == "cpu" else _CHUNK) // max(1, width))
    # Of equal size, as nearly as can be: a rest of a few tokens would be a slow product.
    step = math.ceil(count / math.ceil(count / step)) if count else 1
    return (slice(begin, min(begin + step, count)) for begin in range(0, count, step))
