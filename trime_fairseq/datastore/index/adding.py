"""Training an index and adding keys to it, on the CPU or on GPUs."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..datastore import DatastoreError
from .faiss_library import faiss_error, import_faiss
from .gpu import GpuAdder, require_gpu, train_on_gpus


class Adder(Protocol):
    def add(self, keys: NDArray[np.float32], ids: NDArray[np.int64]) -> None:
        """Adds keys [n, d] with ids [n]: their rows in the datastore."""


class CpuAdder:
    """Adds keys to a Faiss CPU index.

    Args:
        starting_point: the first id; Faiss itself counts from 0.
    """

    def __init__(self, index: Any, starting_point: int) -> None:
        self._index = index
        self._with_ids = starting_point > 0 or isinstance(index, import_faiss().IndexIDMap)

    def add(self, keys: NDArray[np.float32], ids: NDArray[np.int64]) -> None:
        try:
            if self._with_ids:
                self._index.add_with_ids(keys, ids)
            else:
                self._index.add(keys)
        except RuntimeError as error:
            raise DatastoreError(
                f"Faiss cannot add keys to this index ({faiss_error(error)}): choose another `factory`"
            ) from error


def adder(index: Any, starting_point: int, use_gpu: bool) -> Adder:
    """For a trained index, empty or not."""
    if not use_gpu:
        return CpuAdder(index, starting_point)
    empty = import_faiss().clone_index(index)
    empty.reset()
    return GpuAdder(index, empty)


def train(index: Any, keys: NDArray[np.float32], use_gpu: bool) -> None:
    """Trains an index with keys [n, d].

    Raises:
        DatastoreError: if there are too few.
    """
    try:
        if use_gpu:
            train_on_gpus(index, keys)
        else:
            index.train(keys)
    except RuntimeError as error:
        raise DatastoreError(
            f"Faiss cannot train the index with {len(keys):,} keys ({faiss_error(error)}): choose a smaller "
            "`ncentroids` or another `factory`"
        ) from error


def check_kind(new_index: Callable[[], Any], starting_point: int, use_gpu: bool) -> None:
    """Raises DatastoreError if an index of this kind cannot be built on a GPU or number its keys as asked."""
    if use_gpu:
        require_gpu(new_index())
    if not starting_point:
        return
    index = new_index()
    try:
        index.add_with_ids(np.empty((0, index.d), dtype=np.float32), np.empty(0, dtype=np.int64))
    except RuntimeError as error:
        # An index with ids complains of something else: it is not trained.
        if "not implemented" in str(error):
            raise DatastoreError(
                "this index cannot number its keys from `starting_point` on: leave it out, or choose "
                "an index with lists (IVF...) or IDMap,... (`factory`)"
            ) from error
