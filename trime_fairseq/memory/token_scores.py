"""The two token terms of the objective, a and b, for plain and for adaptive softmax."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .numerics import autocast_dtype, to_device
from .token_softmax import linear_lse_and_pick, lse_and_pick

# The most logits that are held at once: 1 GiB in half precision.
_MOST_KEPT = 2**29


class AdaptiveSoftmax(Protocol):
    """What :func:`adaptive_token_scores` needs of a module; fairseq's ``AdaptiveSoftmax`` has it."""

    cutoff: Sequence[int]
    dropout_module: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor]
    tail: Sequence[Callable[[Tensor], Tensor]]


def plain_token_scores(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """a and b of a softmax over the whole vocabulary.

    Args:
        logits: token logits, [N, V], any floating dtype.
        target: int64 [N].

    Returns:
        a = logsumexp of the logits and b = logit of the target, float32 (float64 for float64) [N].
    """
    return lse_and_pick(logits, target)


def linear_token_scores(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
) -> tuple[Tensor, Tensor]:
    """a and b of a softmax over the whole vocabulary, with the logits ``features @ weight.T + bias``.

    With many tokens and a large vocabulary, the logits are computed a slice at a time.

    Args:
        features: decoder output, [N, d].
        weight: output embeddings, [V, d].
        bias: [V] or None.
        target: int64 [N].
    """
    if len(features) * len(weight) <= _MOST_KEPT:
        return lse_and_pick(functional.linear(features, weight, bias), target)
    dtype = autocast_dtype(features.device.type) or features.dtype
    features, weight = features.to(dtype), weight.to(dtype)
    return linear_lse_and_pick(features, weight, None if bias is None else bias.to(dtype), target)


def adaptive_token_scores(
    softmax: AdaptiveSoftmax,
    features: Tensor,
    target: Tensor,
    uncharged_tail_index: int | None = None,
    host_target: NDArray[np.int64] | None = None,
) -> tuple[Tensor, Tensor]:
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
        host_target: the same targets on the CPU, [N]. They tell which tokens belong to which tail. Without
            them the host has to wait for the device to learn it.

    Returns:
        a and b, float32 (float64 for float64) of shape [N].
    """
    features = softmax.dropout_module(features)
    bands = list(zip(softmax.cutoff, softmax.cutoff[1:]))
    head_target = target
    for number, (low, high) in enumerate(bands):
        in_tail = (target >= low) & (target < high)
        head_target = head_target.masked_fill(in_tail, softmax.cutoff[0] + number)
    token_lse, target_logit = lse_and_pick(softmax.head(features), head_target)
    for tail, (low, high) in zip(softmax.tail, bands):
        rows = _rows_between(target, host_target, low, high)
        if not rows.numel():
            continue
        tail_target = target[rows] - low
        tail_lse, tail_logit = lse_and_pick(tail(features.index_select(0, rows)), tail_target)
        log_prob = tail_logit - tail_lse
        if uncharged_tail_index is not None:
            log_prob = log_prob.masked_fill(tail_target == uncharged_tail_index, 0.0)
        target_logit = target_logit.index_add(0, rows, log_prob)
    return token_lse, target_logit


def _rows_between(target: Tensor, host_target: NDArray[np.int64] | None, low: int, high: int) -> Tensor:
    """Indices of the targets in [low, high): int64, on the device of ``target``."""
    if host_target is None:
        return ((target >= low) & (target < high)).nonzero().squeeze(1)
    rows = torch.from_numpy(np.flatnonzero((host_target >= low) & (host_target < high)))
    return to_device(rows, target.device)
