"""TRIME by explicit loops over Python floats: slow, and plain enough to be checked by eye."""

import math
from collections.abc import Sequence

INFINITY = float("inf")


def log_add(values: Sequence[float]) -> float:
    highest = max(values, default=-INFINITY)
    if highest == -INFINITY:
        return -INFINITY
    return highest + math.log(sum(math.exp(value - highest) for value in values))


def similarity(query: Sequence[float], key: Sequence[float], scale: float) -> float:
    return scale * sum(q * k for q, k in zip(query, key))


def memory_lse(queries, keys, query_targets, key_tokens, sees, scale):
    """Two lists: log-sum-exps over visible keys, and over visible keys with the target's token.
    ``sees(i, j)`` tells whether query i sees key j."""
    every: list[float] = []
    positive: list[float] = []
    for i, query in enumerate(queries):
        visible = [j for j in range(len(keys)) if sees(i, j)]
        scores = [similarity(query, keys[j], scale) for j in visible]
        every.append(log_add(scores))
        positive.append(log_add([s for s, j in zip(scores, visible) if key_tokens[j] == query_targets[i]]))
    return every, positive


def nearest_lse(queries, keys, query_targets, key_tokens, sees, scale, topk, metric):
    """:func:`memory_lse` over the ``topk`` most similar visible keys (None: all)."""
    every: list[float] = []
    positive: list[float] = []
    for i, query in enumerate(queries):
        scores = []
        for j, key in enumerate(keys):
            if sees(i, j):
                distance = sum((q - k) ** 2 for q, k in zip(query, key))
                scores.append((similarity(query, key, scale) if metric == "ip" else -scale * distance, j))
        chosen = sorted(scores, reverse=True)[:topk]
        every.append(log_add([s for s, _ in chosen]))
        positive.append(log_add([s for s, j in chosen if key_tokens[j] == query_targets[i]]))
    return every, positive


def trime_probability(logits, target, scores, tokens):
    """P(target | c) over token logits and memory scores, by its definition."""
    total = sum(math.exp(logit) for logit in logits) + sum(math.exp(score) for score in scores)
    match = math.exp(logits[target])
    match += sum(math.exp(score) for score, token in zip(scores, tokens) if token == target)
    return match / total
