"""How an evaluation mixes the distributions of tokens, memories and neighbours.

With p_LM the model alone, p_TRIME the softmax over tokens and memories together, p_cache the softmax over
these memories alone, and p_kNN the softmax over the neighbours alone:

===================  ================================================================================
``gn``               p_TRIME; with ``use_interp`` (1 - lmbda) p_TRIME + lmbda p_kNN
``lm``               p_LM
``li``               (1 - cache_lmbda) p_LM + cache_lmbda p_cache
``knnlm``            (1 - lmbda) p_LM + lmbda p_kNN
``knnlm``, ``li``    (1 - cache_lmbda - lmbda) p_LM + cache_lmbda p_cache + lmbda p_kNN
===================  ================================================================================

A cache or a set of neighbours that is empty for a token gives its weight there to what comes first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..memory import (
    Weighted,
    interpolate,
    memory_mass,
    positive_share,
    remaining_weight,
    trime_log_prob,
)
from .config import MemoryConfig
from .memory_scores import MemoryScores, NeighborScores


class Mixture(NamedTuple):
    """A distribution at N tokens, float32 [N] each (float64 for float64).

    Attributes:
        log_prob: of the target.
        mass: share of the distribution that lies on memories.
        share: share of the target's probability that came from memories.
    """

    log_prob: Tensor
    mass: Tensor
    share: Tensor


class Distributions(NamedTuple):
    """What a mixture is made of.

    Attributes:
        first: p_LM or p_TRIME, which has the weight that the others leave.
        others: p_cache, p_kNN, those in use: one for each of :attr:`MemoryConfig.weight_names`.
    """

    first: Mixture
    others: tuple[NeighborScores, ...]


def mix(
    config: MemoryConfig,
    token_lse: Tensor,
    target_logit: Tensor,
    joint: MemoryScores | None,
    alone: NeighborScores | None,
) -> Mixture:
    """The distribution of a configuration, with its weights.

    Args:
        config: mode, memories and weights; temperatures and sizes are in the scores already.
        token_lse, target_logit: a and b of the objective, floating point [N].
        joint: scores of the memories that enter a softmax, [N]; None where none does.
        alone: the distribution of the neighbours, [N]; None where it is not used.
    """
    return weighted(distributions(config, token_lse, target_logit, joint, alone), config.weights)


def distributions(
    config: MemoryConfig,
    token_lse: Tensor,
    target_logit: Tensor,
    joint: MemoryScores | None,
    alone: NeighborScores | None,
) -> Distributions:
    """The distributions that :func:`mix` weights; arguments as there, but ``config`` needs no weights."""
    log_prob = target_logit - token_lse
    nothing = torch.zeros_like(log_prob)
    first = Mixture(log_prob, nothing, nothing)
    others = []
    if joint is not None and config.mode == "li":
        others.append(cache_scores(joint))
    elif joint is not None:
        first = Mixture(
            trime_log_prob(token_lse, target_logit, *joint),
            memory_mass(token_lse, joint.all_lse),
            positive_share(target_logit, joint.positive_lse),
        )
    if alone is not None:
        others.append(alone)
    return Distributions(first, tuple(others))


def cache_scores(joint: MemoryScores) -> NeighborScores:
    """The softmax over the memories alone."""
    exists = joint.all_lse != -torch.inf  # NaN is no empty memory
    return NeighborScores((joint.positive_lse - joint.all_lse).masked_fill(~exists, -torch.inf), exists)


def weighted(parts: Distributions, weights: Sequence[float]) -> Mixture:
    """Mixes distributions.

    Args:
        parts: of which all but the first are memories.
        weights: of the others, in [0, 1], with a sum of at most 1.
    """
    if not parts.others:
        return parts.first
    log_prob, mass, share = parts.first
    others: list[Weighted] = [
        (other.log_prob, weight, other.exists) for other, weight in zip(parts.others, weights, strict=True)
    ]
    result = interpolate(log_prob, *others)
    rest = remaining_weight(*others).to(log_prob.dtype)
    # What the first distribution has of the target's probability, of which ``share`` came from memory.
    of_first = ((log_prob - result).exp() * rest).masked_fill(rest == 0, 0.0)
    return Mixture(result, 1 - rest * (1 - mass), 1 - of_first * (1 - share))
