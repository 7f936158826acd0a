"""What each memory contributes to the target's probability."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..evaluation.config import MemoryConfig
from ..evaluation.memory_scores import MemoryScores
from ..tuning import Record

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
    found = {}
    neighbours, weight = _neighbours(record, config)
    if neighbours is not None:
        found["neighbours"] = (neighbours + weight.log() - log_prob).exp()
    parts = dict(_in_softmax(record, config))
    if not parts:
        return found
    total = torch.stack([scores.all_lse for scores in parts.values()]).logsumexp(0)
    if config.mode == "li":
        # Of a softmax over memories alone; without any its weight is the model's.
        remaining = torch.full_like(log_prob, config.cache_lmbda or 0.0).log()
        normaliser = total
    else:
        remaining = (1 - weight).log()
        normaliser = torch.logaddexp(record.token_lse.float(), total)
    for name, scores in parts.items():
        log_part = (scores.positive_lse - normaliser).masked_fill(scores.positive_lse == -math.inf, -math.inf)
        found[name] = (log_part + remaining - log_prob).exp()
    return found


def occurs(record: Record, config: MemoryConfig) -> Tensor:
    """Whether the target's token is in some memory of the setting, bool [N]."""
    result = torch.zeros(record.tokens, dtype=torch.bool)
    for _, scores in _in_softmax(record, config):
        result |= scores.positive_lse > -math.inf
    if _neighbours_used(config):
        result |= _alone(record, config)[0] > -math.inf
    return result


def _in_softmax(record: Record, config: MemoryConfig) -> Iterator[tuple[str, MemoryScores]]:
    """A and P, [N], of the memories that enter a softmax with others."""
    if config.mode == "lm":
        return
    temperature = config.softmax_temp
    if config.use_local:
        yield "local", _at(record, record.local, temperature)
    if config.use_long:
        yield "long", _at(record, record.long, temperature, mem_size=config.mem_size)
    if config.use_external:
        yield "external", _at(record, record.external, temperature, k=config.k)


def _at(
    record: Record, scores: MemoryScores | None, temperature: float | None, mem_size: int = 0, k: int = 0
) -> MemoryScores:
    if scores is None or temperature is None:
        raise ValueError("the record lacks a memory of the setting")
    axes = record.axes
    t = axes.temperatures.index(temperature)
    s = axes.mem_sizes.index(mem_size) if mem_size else 0
    n = axes.ks.index(k) if k else 0
    return MemoryScores(*(lse[t, s, n] for lse in scores))


def _neighbours_used(config: MemoryConfig) -> bool:
    return bool(config.mode != "lm" and (config.knnlm or config.use_interp))


def _alone(record: Record, config: MemoryConfig) -> tuple[Tensor, Tensor]:
    """Log-probability of the target among the neighbours, and whether there is any, [N] each."""
    if record.alone is None:
        raise ValueError("the record lacks a memory of the setting")
    plain = config.knnlm and config.mode != "li"
    temperature = config.softmax_temp if plain else config.interp_temp
    i = record.axes.interp_temps.index(temperature)
    k = record.axes.ks.index(config.k)
    return record.alone.log_prob[i, k], record.alone.exists[i, k]


def _neighbours(record: Record, config: MemoryConfig) -> tuple[Tensor | None, Tensor]:
    """Their log-probability of the target, and the weight that they have at each token."""
    nothing = torch.zeros(record.tokens)
    if not _neighbours_used(config):
        return None, nothing
    log_prob, exists = _alone(record, config)
    return log_prob, nothing.masked_fill(exists, float(config.lmbda or 0.0))
