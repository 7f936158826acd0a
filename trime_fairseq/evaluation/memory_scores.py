"""What the memories of a batch of consecutive samples say about the target of each token.

Scores are computed for several temperatures T, sizes of the long-term memory S and numbers of neighbours K at
once, so that a grid of settings costs one pass of the model and one search. An evaluation is a grid of one
point. A memory that holds nothing for a token scores -inf there: logaddexp leaves the others as they are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..datastore import Neighbors
from ..memory import LongTermMemory, Visibility, memory_lse_at_scales, neighbor_lse, similarity_scale

Intervals = tuple[tuple[int, int, int], ...]


class EvaluatedBatch(NamedTuple):
    """A batch as the memories see it.

    Attributes:
        source: tokens of the model's input, int64 [B, L].
        sample_ids: numbers of the B samples in the text.
        spans: first and last + 1 evaluated position of each row.
        keys: g(c) of every position of the input, [B * L, d].
        queries, targets: g(c) of the N evaluated tokens, [N, d], and the tokens that follow, int64 [N].
    """

    source: Tensor
    sample_ids: Sequence[int]
    spans: Sequence[tuple[int, int]]
    keys: Tensor
    queries: Tensor
    targets: Tensor

    def scales(self, temperatures: Sequence[float]) -> list[float]:
        """Factors of the inner products."""
        return [similarity_scale(self.queries.size(1), temperature) for temperature in temperatures]


class MemoryScores(NamedTuple):
    """A and P of the objective, the log-sum-exps over all memories and over those of the target: float32
    (float64 for float64), of shapes that broadcast to [T, S, K, N]."""

    all_lse: Tensor
    positive_lse: Tensor

    def union(self, other: "MemoryScores") -> "MemoryScores":
        """Over the memories of both."""
        return MemoryScores(*(torch.logaddexp(mine, theirs) for mine, theirs in zip(self, other)))


class NeighborScores(NamedTuple):
    """Scores of the softmax over the neighbours alone, for I temperatures: float32 [I, K, N].

    Attributes:
        log_prob: of the target; -inf where no neighbour votes for it.
        exists: whether a token has any neighbour, bool [I, K, N].
    """

    log_prob: Tensor
    exists: Tensor


class ScoredMemories(NamedTuple):
    """Scores of the memories of a batch; None where a memory is not used.

    Attributes:
        local, long, external: of shapes that broadcast to [T, S, K, N].
        alone: the softmax over the neighbours alone, [I, K, N].
    """

    local: MemoryScores | None = None
    long: MemoryScores | None = None
    external: MemoryScores | None = None
    alone: NeighborScores | None = None

    @property
    def joint(self) -> MemoryScores | None:
        """Over all memories that are in one softmax."""
        return _union(self.local, self.long, self.external)

    def at_point(
        self, temperature: int = 0, size: int = 0, k: int = 0, interp_temp: int = 0
    ) -> "ScoredMemories":
        """At one position of the axes, [N]; an axis of one value holds for all positions."""
        local, long, external = (
            None if part is None else MemoryScores(*(_at(lse, temperature, size, k) for lse in part))
            for part in (self.local, self.long, self.external)
        )
        alone = self.alone
        if alone is not None:
            alone = NeighborScores(*(_at(value, interp_temp, k) for value in alone))
        return ScoredMemories(local, long, external, alone)


def _union(*parts: MemoryScores | None) -> MemoryScores | None:
    there = [part for part in parts if part is not None]
    if not there:
        return None
    joint, *others = there
    for other in others:
        joint = joint.union(other)
    return joint


def _at(values: Tensor, *position: int) -> Tensor:
    for index in position:
        values = values[index if values.size(0) > 1 else 0]
    return values


def local_memory(batch: EvaluatedBatch, temperatures: Sequence[float], impl: str = "auto") -> MemoryScores:
    """Scores [T, 1, 1, N] of the earlier tokens of the model's input; ``impl`` as of :func:`memory_lse`."""
    # The token that followed position t of the input is the input at t + 1. (The last column rolls
    # around, but nothing sees it: there is no query after it.)
    next_tokens = batch.source.roll(-1, dims=1).reshape(-1)
    visibility = Visibility.row_prefixes(batch.source.size(1), tuple(map(tuple, batch.spans)))
    scores = memory_lse_at_scales(
        *(batch.queries, batch.keys, batch.targets, next_tokens, visibility),
        batch.scales(temperatures),
        impl=impl,
    )
    return MemoryScores(*(lse[:, None, None] for lse in scores))


class PrecedingText:
    """Long-term memory: the last tokens that were evaluated before each sample.

    Args:
        sizes: how many tokens, increasing; the memory holds the largest.
        impl: of :func:`trime_fairseq.memory.memory_lse`.
        tokens: of the text, where that is known: no memory needs room for more.

    Attributes:
        memory: keys and tokens.
        last_id: number of the last sample that was added.
    """

    def __init__(self, sizes: Sequence[int], impl: str = "auto", tokens: int = 0) -> None:
        self.memory = LongTermMemory(min(sizes[-1], tokens or sizes[-1]))
        self._sizes = sizes
        self._impl = impl
        self.last_id = -1

    def read_and_add(self, batch: EvaluatedBatch, temperatures: Sequence[float]) -> MemoryScores:
        """Scores [T, S, 1, N]; then the evaluated tokens belong to the memory."""
        intervals, gap = self._intervals(batch)
        memory = self.memory
        memory.append(batch.queries, batch.targets)
        sizes: list[MemoryScores] = []
        for part in intervals:
            more = MemoryScores(
                *memory_lse_at_scales(
                    *(batch.queries, memory.keys, batch.targets, memory.tokens),
                    *(Visibility.shared(part), batch.scales(temperatures)),
                    impl=self._impl,
                )
            )
            sizes.append(sizes[-1].union(more) if sizes else more)
        memory.forget(before=gap)
        return MemoryScores(*(torch.stack(lse, dim=1).unsqueeze(2) for lse in zip(*sizes)))

    def _intervals(self, batch: EvaluatedBatch) -> tuple[list[Intervals], int]:
        """What each row sees once this batch is appended, for each size without the next smaller one: the
        tokens before the row, back to where sample ids were last not consecutive. Also returns where that
        is: nothing before it may be seen any more."""
        gap, end = 0, len(self.memory)
        rows: list[list[tuple[int, int, int]]] = [[] for _ in self._sizes]
        for sample_id, (first, last) in zip(batch.sample_ids, batch.spans):
            if sample_id != self.last_id + 1:
                gap = end
            self.last_id = sample_id
            newer = end
            for row, size in zip(rows, self._sizes):
                begin = max(gap, end - size)
                row.append((begin, newer, last - first))
                newer = begin
            end += last - first
        return [tuple(row) for row in rows], gap


def external_memory(
    batch: EvaluatedBatch, neighbors: Neighbors, temperatures: Sequence[float], ks: Sequence[int]
) -> MemoryScores:
    """Scores [T, 1, K, N] of the first k nearest keys."""
    scores = neighbor_lse(neighbors.scores, neighbors.tokens, batch.targets, batch.scales(temperatures), ks)
    return MemoryScores(*(lse.unsqueeze(1) for lse in scores))


def neighbor_scores(
    neighbors: Neighbors, targets: Tensor, temperatures: Sequence[float], ks: Sequence[int]
) -> NeighborScores:
    """The softmax over the scores of the first k neighbours, divided by a temperature but not by sqrt(d)."""
    scales = [1 / temperature for temperature in temperatures]
    all_lse, positive_lse = neighbor_lse(neighbors.scores, neighbors.tokens, targets, scales, ks)
    exists = all_lse != -torch.inf  # NaN is not nothing
    return NeighborScores((positive_lse - all_lse).masked_fill(~exists, -torch.inf), exists)
