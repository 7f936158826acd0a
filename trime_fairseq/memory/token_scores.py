"""The two token terms of the objective, a and b, for plain and for adaptive softmax."""

from typing import Any, Callable, List, Optional, Protocol, Sequence, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class AdaptiveSoftmax(Protocol):
    """What is used of :class:`fairseq.modules.AdaptiveSoftmax`."""

    dropout_module: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor]
    tail: Sequence[Callable[[Tensor], Tensor]]

    def adapt_target(self, target: Tensor) -> Tuple[List[Optional[Tensor]], List[Optional[Tensor]]]: ...


def plain_token_scores(logits: Tensor, target: Tensor) -> Tuple[Tensor, Tensor]:
    """a and b of a softmax over the whole vocabulary.

    Args:
        logits: token logits, [N, V], any floating dtype.
        target: int64 [N].

    Returns:
        a = logsumexp of the logits and b = logit of the target, float32 (float64 for float64) [N].
    """
    return _lse_and_pick(logits, target)


def adaptive_token_scores(
    softmax: AdaptiveSoftmax,
    features: Tensor,
    target: Tensor,
    uncharged_tail_index: Optional[int] = None,
) -> Tuple[Tensor, Tensor]:
    """a and b of an adaptive softmax, as the published models use it.

    a is the log-sum-exp of the *head* logits, b = a + log p(w) with log p(w) the full log-probability
    of the target: its head logit, or its tail's head logit plus its log-probability within the tail.

    Args:
        softmax: a fairseq ``AdaptiveSoftmax``; its dropout applies in training.
        features: decoder output, [N, d].
        target: int64 [N].
        uncharged_tail_index: targets at this index within their tail keep their tail's head logit as
            b. The published code, like fairseq's ``adaptive_loss``, passes the padding symbol as
            ``ignore_index`` to the tails as well, and so never charges the words at cutoff + 1 for
            their place in the tail. None charges every word, which makes b - a a log-probability.

    Returns:
        a and b, float32 (float64 for float64) of shape [N].
    """
    features = softmax.dropout_module(features)
    (head_target, *tail_targets), tail_rows = softmax.adapt_target(target)
    assert head_target is not None
    token_lse, target_logit = _lse_and_pick(softmax.head(features), head_target)
    for tail, rows, tail_target in zip(softmax.tail, tail_rows, tail_targets):
        if rows is None or tail_target is None:
            continue
        tail_lse, tail_logit = _lse_and_pick(tail(features.index_select(0, rows)), tail_target)
        log_prob = tail_logit - tail_lse
        if uncharged_tail_index is not None:
            log_prob = log_prob.masked_fill(tail_target == uncharged_tail_index, 0.0)
        target_logit = target_logit.index_add(0, rows, log_prob)
    return token_lse, target_logit


class _LseAndPick(torch.autograd.Function):
    """Row-wise log-sum-exp of logits [N, V] and the logit of one column per row, in float32.

    Of N x V numbers only the logits are kept for backward, which makes one gradient of that size;
    ``logsumexp`` and ``gather`` one by one would make three.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, column: Tensor) -> Tuple[Tensor, Tensor]:
        wide = logits if logits.dtype == torch.float64 else logits.float()
        lse = wide.logsumexp(-1)
        ctx.save_for_backward(logits, column, lse)
        return lse, wide.gather(-1, column.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_lse: Tensor, grad_picked: Tensor) -> Tuple[Tensor, None]:
        logits, column, lse = ctx.saved_tensors
        grad = (logits - lse.unsqueeze(-1)).exp_().mul_(grad_lse.unsqueeze(-1))
        grad.scatter_add_(-1, column.unsqueeze(-1), grad_picked.unsqueeze(-1))
        return grad.to(logits.dtype), None


def _lse_and_pick(logits: Tensor, column: Tensor) -> Tuple[Tensor, Tensor]:
    result: Tuple[Tensor, Tensor] = _LseAndPick.apply(  # type: ignore[no-untyped-call]
        logits, column
    )
    return result
