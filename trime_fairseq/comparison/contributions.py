"""What each memory contributes to the target's probability."""

import math

import torch
from torch import Tensor

from ..evaluation.config import MemoryConfig
from ..evaluation.memory_scores import MemoryScores, ScoredMemories
from ..tuning import Record, memories_of

# Names of the contributions: memories by place, and the neighbours' own distribution (kNN-LM, interpolation).
PARTS = ("local", "long", "external", "neighbours")


def shares(record: Record, config: MemoryConfig, log_prob: Tensor) -> dict[str, Tensor]:
    """Shares of the target's probability that come from each memory, float32 [N] each.

    Their sum is the ``share`` of :func:`trime_fairseq.tuning.mixture`.

    Args:
        record: holds the memories that ``config`` uses.
        config: a complete setting.
        log_prob: of the target, with all memories, float32 [N].
    """
    memories = memories_of(record, config)
    found: dict[str, Tensor] = {}
    weight = torch.zeros_like(log_prob)
    if memories.alone is not None:
        weight = weight.masked_fill(memories.alone.exists, float(config.lmbda or 0.0))
        found["neighbours"] = (memories.alone.log_prob + weight.log() - log_prob).exp()
    parts = _in_softmax(memories)
    if not parts:
        return found
    normaliser = torch.stack([scores.all_lse for scores in parts.values()]).logsumexp(0)
    if config.mode == "li":
        # Of a softmax over memories alone; where that is empty, so is each of them.
        log_weight = torch.full_like(log_prob, config.cache_lmbda or 0.0).log()
    else:
        normaliser = torch.logaddexp(record.token_lse, normaliser)
        log_weight = (1 - weight).log()
    for name, scores in parts.items():
        is_there = scores.positive_lse > -math.inf
        log_share = (scores.positive_lse - normaliser).masked_fill(~is_there, -math.inf)
        found[name] = (log_share + log_weight - log_prob).exp()
    return found


def occurs(record: Record, config: MemoryConfig) -> Tensor:
    """Whether the target's token is in some memory of the setting, bool [N]."""
    result = torch.zeros(record.tokens, dtype=torch.bool)
    memories = memories_of(record, config)
    for scores in _in_softmax(memories).values():
        result |= scores.positive_lse > -math.inf
    if memories.alone is not None:
        result |= memories.alone.log_prob > -math.inf
    return result


def _in_softmax(memories: ScoredMemories) -> dict[str, MemoryScores]:
    """The memories that enter a softmax with others."""
    parts = {"local": memories.local, "long": memories.long, "external": memories.external}
    return {name: scores for name, scores in parts.items() if scores is not None}
