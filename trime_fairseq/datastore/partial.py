"""Raw arrays that get their name when they are complete."""

import os
import shutil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import open_regular
from .datastore import DatastoreError


class PartialArray:
    """A raw array [rows, columns] that is written row by row as ``PATH.partial`` and then renamed.

    Several processes may write different rows. What was written before a kill stays. A complete array of
    another size was cut off: it is written again.

    Args:
        path: the name of the complete array.
        dtype, rows, columns: its type and shape.

    Raises:
        DatastoreError: if the disk has no room for the array, or the part is no regular file.
    """

    def __init__(self, path: str, dtype: str, rows: int, columns: int) -> None:
        self.path = path
        self.part = path + ".partial"
        self._row_bytes = columns * np.dtype(dtype).itemsize
        self._size = rows * self._row_bytes
        self._file = -1
        if not self.is_complete():
            self._open()

    def write_again(self) -> None:
        """Opens a new part beside an array that is complete."""
        if self._file < 0:
            self._open()

    def _open(self) -> None:
        self._check_room()
        try:
            self._file = open_regular(self.part, os.O_RDWR | os.O_CREAT)
        except ValueError as error:
            raise DatastoreError(str(error)) from error
        if os.fstat(self._file).st_size not in (0, self._size):
            # It was cut off, or is another's. Nobody is writing it: a writer gives it its full size first.
            os.ftruncate(self._file, 0)
        # Sparse: all processes see the same size, and blocks are taken as rows come.
        os.ftruncate(self._file, self._size)

    def is_complete(self) -> bool:
        return (
            os.path.isfile(self.path)
            and os.path.getsize(self.path) == self._size
            and not os.path.lexists(self.part)
        )

    def is_new(self) -> bool:
        """Whether nothing was written yet, by any process."""
        return not self.is_complete() and os.lstat(self.part).st_blocks == 0

    def _check_room(self) -> None:
        there = os.lstat(self.part).st_blocks * 512 if os.path.lexists(self.part) else 0
        free = shutil.disk_usage(os.path.dirname(os.path.abspath(self.path))).free
        if self._size - there > free:
            raise DatastoreError(
                f"{self.path} needs {self._size / 1e9:,.1f} GB, the disk has {free / 1e9:,.1f} GB left: free "
                "some, choose another disk (`prefix`), or store float16 (`key_dtype`)"
            )

    def write(self, row: int, content: NDArray[Any]) -> None:
        """Writes whole rows from ``row`` on; raises OSError if the disk is full."""
        data = memoryview(np.ascontiguousarray(content).view(np.uint8).reshape(-1).data)
        offset = row * self._row_bytes
        while data:
            written = os.pwrite(self._file, data, offset)
            data, offset = data[written:], offset + written

    def sync(self) -> None:
        """What was written is on the disk, not only in memory, when this returns."""
        if self._file >= 0:
            os.fdatasync(self._file)

    def complete(self) -> None:
        """Gives the array its name."""
        if os.path.exists(self.part):
            os.replace(self.part, self.path)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
