"""Keys as Faiss takes them: float32, finite, normalised for the cosine."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files.machine import memory_size
from .datastore import DatastoreError, finite
from .index.faiss_library import import_faiss

# Small enough that copies and masks of a block are nothing beside a chunk of keys.
BLOCK_ROWS = 16_384


def float_keys(
    keys: NDArray[Any], metric: str, first_row: int = 0, rows: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """A checked copy of keys for training or adding.

    Args:
        keys: float16 or float32 [n, d], maybe memory-mapped.
        metric: with ``cos`` the copy is normalised.
        first_row: the row of ``keys[0]`` in the datastore; for the message of the error.
        rows: indexes into ``keys``, in ascending order; all of them if None.

    Returns:
        float32 [n or len(rows), d].

    Raises:
        DatastoreError: for NaN and infinity.
    """
    count = len(keys) if rows is None else len(rows)
    result = np.empty((count, keys.shape[1]), dtype=np.float32)
    file = getattr(keys, "filename", None)  # of mapped keys
    for begin in range(0, count, BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, count)
        block = keys[begin:end] if rows is None else keys[rows[begin:end]]
        numbers = np.arange(begin, end) if rows is None else rows[begin:end]
        check_finite(block, first_row + numbers, file)
        result[begin:end] = block
    if metric == "cos":
        import_faiss().normalize_L2(result)
    return result


def check_memory(name: str, value: int, rows: int, dimension: int) -> None:
    """Raises DatastoreError, naming the argument, if ``rows`` keys in float32 exceed the machine's memory."""
    wanted = rows * dimension * 4
    there = memory_size()
    if wanted > there:
        raise DatastoreError(
            f"`{name}` {value:,}: so many keys take {wanted / 1e9:,.1f} GB, the machine has "
            f"{there / 1e9:,.1f} GB: lower it"
        )


def check_finite(keys: NDArray[Any], numbers: NDArray[np.int64], file: Any = None) -> None:
    """Raises DatastoreError if keys [n, d] hold NaN or infinity; names the file and rows, ``numbers`` [n]."""
    if finite(keys):
        return
    bad = numbers[~np.isfinite(keys).all(axis=1)]
    names = ", ".join(str(row) for row in bad[:5].tolist()) + (", ..." if len(bad) > 5 else "")
    where = "" if file is None else f"{file}: "
    raise DatastoreError(
        f"{where}keys of {len(bad):,} rows hold NaN or infinity (rows {names}): write the datastore again, "
        "in float32 if they were too large for float16 (`key_dtype`)"
    )
