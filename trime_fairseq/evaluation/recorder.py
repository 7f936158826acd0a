"""Picks the evaluated tokens that become rows of a datastore, and hands their keys to its writer."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..datastore import BackgroundSink
from .datastore_config import flags_named


class RowRanges:
    """The row of each sample of an evaluation.

    Args:
        lengths: evaluated tokens of each sample.
        contexts: tokens of context before each sample.
        full_context: only samples with at least so much context are stored.
        limit: number of rows, if not all; the first ones.

    Raises:
        ValueError: if ``limit`` exceeds what there is.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        contexts: NDArray[np.int64],
        full_context: int = 0,
        limit: int | None = None,
    ) -> None:
        self.full_context = full_context
        stored = np.where(contexts >= full_context, lengths, 0)
        self._ends = np.cumsum(stored)
        self._begins = self._ends - stored
        there = int(self._ends[-1])
        if limit is not None and not 0 < limit <= there:
            raise ValueError(
                f"--dstore-size {limit:,}: the text has {there:,} tokens to store; leave it out to store all"
            )
        self.rows = limit or there
        if not self.rows:
            raise ValueError("--context-full-only: no sample of this text has a full context window")

    def range(self, batches: Sequence[Sequence[int]]) -> tuple[int, int]:
        """The rows [begin, end) of consecutive batches of samples."""
        if not batches:
            return self.rows, self.rows
        begin, end = self._begins[batches[0][0]], self._ends[batches[-1][-1]]
        return min(int(begin), self.rows), min(int(end), self.rows)

    def missing(self, batches: list[list[int]], resume_row: int) -> tuple[list[list[int]], int]:
        """The batches that hold rows from ``resume_row`` on, and the first row of the first of them."""
        fresh = bool(batches) and resume_row == self.range(batches)[0]
        wanted = [
            batch
            for batch in batches
            if self._begins[batch[0]] < self.rows and (fresh or self._ends[batch[-1]] > resume_row)
        ]
        if resume_row >= self.range(batches)[1]:
            wanted = []
        return wanted, self.range(wanted)[0]


class KeyRecorder:
    """Hands the keys of a batch on, without those that are not stored.

    Args:
        sink: where they go.
        full_context: see :class:`RowRanges`.
        rows: how many may still come.
    """

    def __init__(self, sink: BackgroundSink, full_context: int, rows: int) -> None:
        self._sink = sink
        self._full_context = full_context
        self._rows = rows

    def add(self, spans: Sequence[tuple[int, int]], queries: Tensor, targets: Tensor) -> None:
        """Keys [N, d] and tokens int64 [N] of samples with these evaluated positions (first, last + 1)."""
        short = [first < self._full_context for first, _ in spans]
        if any(short):
            lengths = [last - first for first, last in spans]
            kept = torch.tensor([not s for s in short]).repeat_interleave(torch.tensor(lengths))
            kept = kept.to(queries.device)
            queries, targets = queries[kept], targets[kept]
        queries, targets = queries[: self._rows], targets[: self._rows]
        self._rows -= len(targets)
        if len(targets):
            with flags_named():
                self._sink.add(queries, targets)

    def finish(self) -> None:
        """Call once after the last batch; completes the datastore, or this process's part of it."""
        with flags_named():
            self._sink.finish()
