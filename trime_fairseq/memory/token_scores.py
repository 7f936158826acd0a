"""The two token terms of the objective, a and b, for plain and for adaptive softmax."""

from typing import Callable, List, Optional, Protocol, Sequence, Tuple

import torch
from torch import Tensor


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
    logits = _at_least_float32(logits)
    return logits.logsumexp(-1), _pick(logits, target)


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
    head = _at_least_float32(softmax.head(features))
    token_lse = head.logsumexp(-1)
    target_logit = _pick(head, head_target)
    for tail, rows, tail_target in zip(softmax.tail, tail_rows, tail_targets):
        if rows is None or tail_target is None:
            continue
        logits = _at_least_float32(tail(features.index_select(0, rows)))
        log_prob = _pick(logits, tail_target) - logits.logsumexp(-1)
        if uncharged_tail_index is not None:
            log_prob = log_prob.masked_fill(tail_target == uncharged_tail_index, 0.0)
        target_logit = target_logit.index_add(0, rows, log_prob)
    return token_lse, target_logit


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _pick(logits: Tensor, target: Tensor) -> Tensor:
    return logits.gather(-1, target.unsqueeze(-1)).squeeze(-1)
