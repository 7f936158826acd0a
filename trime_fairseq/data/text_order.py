"""Text order: which samples, in which batches, on which shard."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def keep_short_enough(
    sizes: NDArray[np.int64], max_positions: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the samples that fit the model's positions, and of those that do not, in text order."""
    too_long = sizes > (max_positions if max_positions is not None else np.inf)
    return np.flatnonzero(~too_long), np.flatnonzero(too_long)


def consecutive_batches(
    lengths: Sequence[int], max_tokens: int, max_rows: int | None = None
) -> list[list[int]]:
    """Cuts rows into batches of consecutive ones, as large as allowed. Returns their positions.

    Args:
        lengths: tokens of each row.
        max_tokens: bound on rows times the longest row of a batch; a single longer row is a batch.
        max_rows: bound on rows, if any.
    """
    batches: list[list[int]] = []
    longest = 0
    for position, length in enumerate(lengths):
        rows = len(batches[-1]) if batches else 0
        fits = max(longest, length) * (rows + 1) <= max_tokens
        if rows and fits and (max_rows is None or rows < max_rows):
            batches[-1].append(position)
            longest = max(longest, length)
        else:
            batches.append([position])
            longest = length
    return batches


def contiguous_shard(batches: list[T], num_shards: int, shard_id: int) -> list[T]:
    """The ``shard_id``-th of ``num_shards`` contiguous runs of batches, equal in number up to one.

    For 7 batches on 3 shards: [0 1 2] [3 4] [5 6], where fairseq deals out [0 3 6] [1 4] [2 5].
    """
    size, longer = divmod(len(batches), num_shards)
    first = shard_id * size + min(shard_id, longer)
    return batches[first : first + size + (shard_id < longer)]
