"""Which positions of a padded batch of target sentences are memory, and which are scored."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..memory.numerics import to_device


@dataclass(frozen=True)
class TargetRows:
    """Positions of a batch by their index among all B * L, row by row; plain numbers on the CPU.

    Attributes:
        tokens: of the tokens, int64 [n].
        scored: of those that have a loss, int64 [s].
        lengths: tokens of each row.
        scored_lengths: those that have a loss.
        width: number of all positions, B * L.
    """

    tokens: NDArray[np.int64]
    scored: NDArray[np.int64]
    lengths: tuple[int, ...]
    scored_lengths: tuple[int, ...]
    width: int

    @classmethod
    def of(cls, target: NDArray[np.int64], pad: int, prefix: int = 0) -> "TargetRows":
        """Reads them off a batch, with padding at either end of its rows.

        Args:
            target: int64 [B, L].
            pad: the padding symbol.
            prefix: the first tokens of each sentence without a loss.
        """
        is_token = target != pad
        is_scored = is_token & (is_token.cumsum(1) > prefix)
        return cls(
            tokens=np.flatnonzero(is_token),
            scored=np.flatnonzero(is_scored),
            lengths=tuple(is_token.sum(1).tolist()),
            scored_lengths=tuple(is_scored.sum(1).tolist()),
            width=target.size,
        )

    def intervals(self, before: int) -> list[tuple[int, int, int]]:
        """Begin and end of each sentence among all tokens, with ``before`` others first; its scored ones."""
        last = before + np.cumsum(self.lengths, dtype=np.int64)
        return [
            (int(end) - length, int(end), scored)
            for end, length, scored in zip(last, self.lengths, self.scored_lengths)
        ]


def take(rows: Tensor, index: NDArray[np.int64]) -> Tensor:
    """The rows of a tensor [B * L, ...] with these indices, without waiting for its device."""
    if len(index) == len(rows):
        return rows
    return rows.index_select(0, _on(index, rows.device))


def put(values: Tensor, index: NDArray[np.int64], width: int) -> Tensor:
    """The inverse for a vector: [width], with these values at their indices and 0 elsewhere."""
    return values.new_zeros(width).index_add(0, _on(index, values.device), values)


def _on(index: NDArray[np.int64], device: torch.device) -> Tensor:
    return to_device(torch.from_numpy(index), device)
