"""The memories of a batch of consecutive samples: what they say about the target of each token.

All are computed for several temperatures, sizes and numbers of neighbours at once, so that a grid of settings
costs one pass of the model and one search. An evaluation is a grid of one point.
"""

from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..datastore import Neighbors
from ..memory import LongTermMemory, Visibility, memory_lse, neighbor_lse

# A and P of the objective, [N] each.
LsePair = Tuple[Tensor, Tensor]
Intervals = Tuple[Tuple[int, int, int], ...]


@dataclass(frozen=True)
class Grid:
    """The values for which memories are computed; sizes and numbers of neighbours increase."""

    temperatures: Tuple[float, ...]
    mem_sizes: Tuple[int, ...] = ()
    ks: Tuple[int, ...] = ()


class Batch(NamedTuple):
    """A batch as the memories see it.

    Attributes:
        sample: of :class:`trime_fairseq.data.ContextWindowDataset`.
        keys: g(c) of every position of the input, [B * T, d].
        evaluated: positions of the N evaluated tokens among them, int64 [N].
        queries, targets: g(c) of the evaluated tokens, [N, d], and the tokens that follow, int64 [N].
    """

    sample: Dict[str, Any]
    keys: Tensor
    evaluated: Tensor
    queries: Tensor
    targets: Tensor


def local_memory(batch: Batch, temperatures: Sequence[float], impl: str = "auto") -> List[LsePair]:
    """A and P over the earlier tokens of the model's input, for each temperature; ``impl`` as of
    :func:`trime_fairseq.memory.memory_lse`."""
    source = batch.sample["net_input"]["src_tokens"]
    # The token that followed position t of the input is the input at t + 1. (The last column rolls
    # around, but nothing sees it: there is no query after it.)
    next_tokens = source.roll(-1, dims=1).reshape(-1)
    visibility = Visibility.row_prefixes(source.size(1), tuple(map(tuple, batch.sample["spans"])))
    return [
        memory_lse(
            *(batch.queries, batch.keys, batch.targets, next_tokens, visibility),
            scale(batch, temperature),
            impl=impl,
        )
        for temperature in temperatures
    ]


class PrecedingText:
    """Long-term memory: the last tokens that were evaluated before each sample.

    Args:
        sizes: how many tokens, increasing; the memory holds the largest.
        impl: of :func:`trime_fairseq.memory.memory_lse`.
    """

    def __init__(self, sizes: Sequence[int], impl: str = "auto") -> None:
        self._sizes = sizes
        self._impl = impl
        self._memory = LongTermMemory(sizes[-1])
        self._last_id = -1

    def read_and_add(self, batch: Batch, temperatures: Sequence[float]) -> List[List[LsePair]]:
        """A and P for each temperature and size; then the evaluated tokens belong to the memory."""
        intervals, gap = self._intervals(batch.sample)
        memory = self._memory
        memory.append(batch.queries, batch.targets)
        result = []
        for temperature in temperatures:
            sums: List[LsePair] = []
            for part in intervals:
                pair = memory_lse(
                    *(batch.queries, memory.keys, batch.targets, memory.tokens),
                    *(Visibility.shared(part), scale(batch, temperature)),
                    impl=self._impl,
                )
                sums.append(add(sums[-1], pair) if sums else pair)
            result.append(sums)
        memory.forget(before=gap)
        return result

    def _intervals(self, sample: Dict[str, Any]) -> Tuple[List[Intervals], int]:
        """What each row sees once this batch is appended, for each size without the next smaller one: the
        tokens before the row, back to where sample ids were last not consecutive. Also returns that place:
        nothing before it may be seen any more."""
        gap, end = 0, len(self._memory)
        rows: List[List[Tuple[int, int, int]]] = [[] for _ in self._sizes]
        for sample_id, (first, last) in zip(sample["sample_ids"], sample["spans"]):
            if sample_id != self._last_id + 1:
                gap = end
            self._last_id = sample_id
            newer = end
            for row, size in zip(rows, self._sizes):
                begin = max(gap, end - size)
                row.append((begin, newer, last - first))
                newer = begin
            end += last - first
        return [tuple(row) for row in rows], gap


def external_memory(
    batch: Batch, neighbors: Neighbors, temperatures: Sequence[float], ks: Sequence[int]
) -> List[List[LsePair]]:
    """A and P over the nearest keys, for each temperature and number of neighbours."""
    scores, tokens, _ = neighbors
    return [
        list(zip(*neighbor_lse(scores, tokens, batch.targets, scale(batch, temperature), ks)))
        for temperature in temperatures
    ]


def neighbor_log_prob(
    neighbors: Neighbors, targets: Tensor, temperatures: Sequence[float], ks: Sequence[int]
) -> List[List[LsePair]]:
    """For each temperature and k, the log-probability of the target in the softmax over the scores of the
    first k neighbours, and whether there are any: [N] each."""
    scores, tokens, _ = neighbors
    result = []
    for temperature in temperatures:
        sums = neighbor_lse(scores, tokens, targets, 1 / temperature, ks)
        exists = [every > -torch.inf for every in sums[0]]
        result.append([((p - a).masked_fill(~e, -torch.inf), e) for a, p, e in zip(*sums, exists)])
    return result


def scale(batch: Batch, temperature: float) -> float:
    """Factor of the inner products."""
    return float(batch.queries.size(1) ** -0.5 / temperature)


def add(first: Optional[LsePair], second: Optional[LsePair]) -> LsePair:
    """A and P over two memories, either of which may be missing."""
    if first is None or second is None:
        only = first if second is None else second
        assert only is not None
        return only
    return torch.logaddexp(first[0], second[0]), torch.logaddexp(first[1], second[1])
