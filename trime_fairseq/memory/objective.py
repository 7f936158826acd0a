"""The TRIME distribution from its four log-sum-exps per token (Zhong et al. 2022, equations 1 to 4).

With token logits l and memory similarities s, for a target w:

    a = logsumexp of the token logits        A = logsumexp of s over all visible memories
    b = l_w                                  P = logsumexp of s over the visible memories whose token is w

    log p(w) = logaddexp(b, P) - logaddexp(a, A)

A row without visible memory has A = P = -inf, one without a positive P = -inf: both are ordinary.
"""

import torch
from torch import Tensor


def similarity_scale(dimension: int, temperature: float = 1.0) -> float:
    """Factor of the dot products of representations: 1 / (sqrt(d) * tau).

    Args:
        dimension: d of the representations.
        temperature: tau; 1 in training.
    """
    return float(dimension**-0.5 / temperature)


def trime_log_prob(token_lse: Tensor, target_logit: Tensor, all_lse: Tensor, positive_lse: Tensor) -> Tensor:
    """log p(w | c) of the joint softmax over tokens and memories, in nats. Its negative is the TRIME loss.

    Args:
        token_lse: a, any shape, finite. For an adaptive softmax: of the head's logits only.
        target_logit: b, the same shape, finite. For an adaptive softmax: a + log p(w).
        all_lse, positive_lse: A and P of :func:`trime_fairseq.memory.memory_lse`, the same shape.
    """
    return torch.logaddexp(target_logit, positive_lse) - torch.logaddexp(token_lse, all_lse)


def memory_mass(token_lse: Tensor, all_lse: Tensor) -> Tensor:
    """Share of the whole distribution that lies on memories, exp(A) / (exp(a) + exp(A)), in [0, 1]."""
    return torch.sigmoid(all_lse - token_lse)


def positive_share(target_logit: Tensor, positive_lse: Tensor) -> Tensor:
    """Share of the target's probability that came from memory, exp(P) / (exp(b) + exp(P)), in [0, 1]."""
    return torch.sigmoid(positive_lse - target_logit)
