"""Which keys each query may see, as four integers per query instead of an N x M mask."""

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .numerics import to_device
from .tiling import Tile, cut_into_blocks, share_between_parts

# Masks up to this size are kept: the mask of a short segment costs as much as its similarities.
_KEPT_MASK = 2**17

# On a CPU, intervals are filled instead of masks made where at least so many queries in a row share them.
_SHARED_BY = 8


class Visibility:
    """Query ``i`` sees key ``j`` iff ``begin[i] <= j < end[i]`` and not ``skip_begin[i] <= j < skip_end[i]``.

    An allowed interval minus an excluded one covers every memory of TRIME: the earlier tokens of a
    segment, the earlier tokens of a group of segments, or all segments but one's own.

    The rows stay on the CPU, because they decide which tiles are computed at all: reading them from an
    accelerator would make every training step wait for it.

    Args:
        begin, end: allowed interval per query, int64 of shape [n] on the CPU.
        skip_begin, skip_end: excluded interval per query, the same; both or neither.
        repeats: number of equal parts of queries and keys that the pattern of n queries holds for, segments
            for example. Part r of the queries sees part r of the keys only: N = repeats * n queries, M /
            repeats keys each.

    Raises:
        ValueError: if the four rows differ in length or are not integers on the CPU.
    """

    def __init__(
        self,
        begin: Tensor,
        end: Tensor,
        skip_begin: Tensor | None = None,
        skip_end: Tensor | None = None,
        repeats: int = 1,
    ) -> None:
        if (skip_begin is None) != (skip_end is None):
            raise ValueError("skip_begin and skip_end go together")
        if skip_begin is None or skip_end is None:
            skip_begin = skip_end = torch.zeros_like(begin)
        rows = [begin, end, skip_begin, skip_end]
        for row in rows:
            if row.dim() != 1 or row.dtype != torch.int64 or row.device.type != "cpu":
                raise ValueError("visibility rows must be int64 vectors on the CPU")
            if row.numel() != begin.numel():
                raise ValueError("visibility rows differ in length")
        self.repeats = repeats
        self._rows = torch.stack(rows)
        self._on_device: dict[torch.device, Tensor] = {}
        self._masks: dict[tuple[int, int, int, int, torch.device], Tensor] = {}
        self._tiles: dict[tuple[int, tuple[int, int]], list[Tile]] = {}

    @property
    def num_queries(self) -> int:
        """N, over all repeats."""
        return self.repeats * self._rows.size(1)

    # The constructors are cached: nearly all batches have the shape of the one before.
    @staticmethod
    @lru_cache(maxsize=16)
    def own_segment(num_segments: int, length: int) -> "Visibility":
        """Each token sees the earlier tokens of its own segment (``trime_loss``).

        Queries and keys are both the tokens of ``num_segments`` segments of ``length`` tokens,
        flattened row by row.
        """
        position = torch.arange(length)
        return Visibility(torch.zeros_like(position), position, repeats=num_segments)

    @staticmethod
    @lru_cache(maxsize=16)
    def row_prefixes(width: int, spans: tuple[tuple[int, int], ...]) -> "Visibility":
        """Each query sees the positions before it of its own row of a padded batch.

        Queries are the positions ``first <= t < last`` of each row, ``spans[row] = (first, last)``;
        keys are all ``len(spans) * width`` positions, flattened row by row.
        """
        if len(set(spans)) == 1:
            position = torch.arange(*spans[0])
            return Visibility(torch.zeros_like(position), position, repeats=len(spans))
        starts = [row * width for row in range(len(spans))]
        counts = torch.tensor([last - first for first, last in spans])
        end = [torch.arange(start + first, start + last) for start, (first, last) in zip(starts, spans)]
        return Visibility(torch.tensor(starts).repeat_interleave(counts), torch.cat(end))

    @staticmethod
    @lru_cache(maxsize=16)
    def shared(intervals: tuple[tuple[int, int, int], ...]) -> "Visibility":
        """Groups of queries, each with the keys it sees: ``(begin, end, number of queries)`` per group."""
        begin, end, counts = torch.tensor(intervals).t()
        return Visibility(begin.repeat_interleave(counts), end.repeat_interleave(counts))

    @staticmethod
    def all_but(intervals: Sequence[tuple[int, int, int]], total: int) -> "Visibility":
        """Groups of queries, each with the keys that it does not see, of ``total``: ``(begin, end, number of
        queries)`` per group (``trime_mt_loss``: the tokens of other sentences)."""
        begin, end, counts = torch.tensor(intervals, dtype=torch.int64).reshape(-1, 3).t()
        begin, end = begin.repeat_interleave(counts), end.repeat_interleave(counts)
        return Visibility(torch.zeros_like(begin), torch.full_like(begin, total), begin, end)

    @staticmethod
    @lru_cache(maxsize=16)
    def consecutive(width: int, lengths: tuple[int, ...], before: int) -> "Visibility":
        """Each token sees all tokens before it in the text (``trime_long_loss``).

        Queries are the positions of a padded batch of ``len(lengths)`` rows of ``width``, flattened row by
        row. Keys are the tokens of the rows one after the other, without padding, behind ``before`` keys of
        other devices. Padding sees nothing.
        """
        own, _, seen = _positions(width, lengths)
        return Visibility(torch.zeros_like(own), (own + before).masked_fill(~seen, 0))

    @staticmethod
    @lru_cache(maxsize=16)
    def all_segments(
        width: int, lengths: tuple[int, ...], before: int, total: int, hide_own: bool
    ) -> "Visibility":
        """Each token sees all tokens of other segments, and the earlier ones of its own unless
        ``hide_own`` (``trime_ext_loss``).

        Queries and keys as in :meth:`consecutive`; of ``total`` keys, those from ``before`` on are the
        batch's.
        """
        own, segment, seen = _positions(width, lengths)
        end = torch.full_like(own, total).masked_fill(~seen, 0)
        first_hidden = segment if hide_own else own
        lasts = segment + torch.tensor(lengths).repeat_interleave(width)
        return Visibility(torch.zeros_like(own), end, first_hidden + before, lasts + before)

    def tiles(self, keys_per_part: int, size: tuple[int, int]) -> list[Tile]:
        """Tiles of at most ``size`` queries and keys that hold all visible pairs."""
        if (keys_per_part, size) not in self._tiles:
            blocks = cut_into_blocks(self._rows.numpy(), keys_per_part, *size)
            tiles = share_between_parts(blocks, self.repeats, size[0] * size[1])
            self._tiles[keys_per_part, size] = tiles
        return self._tiles[keys_per_part, size]

    def rows_on(self, device: torch.device) -> Tensor:
        """The four rows of a part on a device, int32 [4, n]."""
        if device not in self._on_device:
            self._on_device[device] = to_device(self._rows.int(), device)
        return self._on_device[device]

    def hide(self, similarity: Tensor, queries: slice, keys: slice) -> None:
        """Sets what a query of a tile may not see to -inf, in its similarities [parts, queries, keys]."""
        runs = self._runs_of(queries)
        if similarity.device.type != "cpu" or len(runs) * _SHARED_BY > queries.stop - queries.start:
            similarity.masked_fill_(self.hidden(queries, keys, similarity.device), -math.inf)
            return
        # A mask of a tile costs a tenth of its similarities.
        width = keys.stop - keys.start
        for first, last, *row in runs:
            begin, end, *skip = (min(max(place - keys.start, 0), width) for place in row)
            for hidden in (slice(0, begin), slice(end, width), slice(*skip)):
                similarity[:, first - queries.start : last - queries.start, hidden] = -math.inf

    def hides_own_groups(self, num_keys: int) -> bool:
        """Whether queries and keys are the same, in groups, and each sees all but its own group: then i sees
        j where j sees i."""
        first, last, begin, end, skip_begin, skip_end = self._runs.T
        sees_all = (begin <= 0) & (end >= num_keys) & (skip_begin == first) & (skip_end == last)
        return self.repeats == 1 and self.num_queries == num_keys and bool(sees_all.all())

    def hides_some(self, queries: slice, keys: slice) -> bool:
        """Whether a query of a tile may not see one of its keys, where each may see all but an interval."""
        skips = self._rows[2:, queries].numpy()
        return bool(((skips[0] < keys.stop) & (skips[1] > keys.start) & (skips[0] < skips[1])).any())

    @cached_property
    def _runs(self) -> NDArray[np.int64]:
        """Consecutive queries that see the same: the first, the one after the last, their row; [runs, 6]."""
        rows = self._rows.numpy()
        differs = np.ones(rows.shape[1], dtype=bool)
        differs[1:] = (rows[:, 1:] != rows[:, :-1]).any(0)
        first = np.flatnonzero(differs)
        last = np.append(first, rows.shape[1])[1:]
        return np.stack([first, last, *rows[:, first]], axis=1)

    def _runs_of(self, queries: slice) -> list[list[int]]:
        """Those of a tile."""
        first, last = self._runs[:, 0], self._runs[:, 1]
        runs = self._runs[(first < queries.stop) & (last > queries.start)]
        runs[:, :2] = runs[:, :2].clip(queries.start, queries.stop)
        found: list[list[int]] = runs.tolist()
        return found

    def hidden(self, queries: slice, keys: slice, device: torch.device) -> Tensor:
        """True where a query of a tile may not see a key: bool [queries, keys], the same for all parts."""
        tile = (queries.start, queries.stop, keys.start, keys.stop, device)
        if tile in self._masks:
            return self._masks[tile]
        begin, end, skip_begin, skip_end = self.rows_on(device)[:, queries].unsqueeze(-1)
        key = torch.arange(keys.start, keys.stop, device=device)
        hidden: Tensor = (key < begin) | (key >= end) | ((key >= skip_begin) & (key < skip_end))
        if hidden.numel() <= _KEPT_MASK:
            self._masks[tile] = hidden
        return hidden

    def dense(self, num_keys: int, device: torch.device) -> Tensor:
        """The mask of hidden keys, bool [N, M]. For tests and baselines; nothing else makes one."""
        part = slice(0, self._rows.size(1)), slice(0, num_keys // self.repeats)
        seen = ~self.hidden(*part, device=device)
        blocks: Tensor = torch.block_diag(*[seen] * self.repeats)
        return ~blocks


def _positions(width: int, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """For each position of a padded batch, flattened: its index among the tokens without padding, the index
    of its row's first token, and whether it is a token."""
    position = torch.arange(width).repeat(len(lengths))
    counts = torch.tensor(lengths)
    segment = (counts.cumsum(0) - counts).repeat_interleave(width)
    return segment + position, segment, position < counts.repeat_interleave(width)
