"""Checks what an index holds: its ids, its metric, its keys."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datastore import DatastoreError
from .faiss_library import import_faiss

# What to do about an index that cannot be used; ends messages.
BUILD_AGAIN = "remove it and build it again with trime-build-index"
# Kinds whose keys Faiss decodes one by one. (Asked for those of a "fast scan" it crashes.)
_DECODED = ("IndexIVFFlat", "IndexIVFPQ", "IndexIVFScalarQuantizer")

Ids = NDArray[np.int64]


def check_index(index: Any, path: str, first: int, end: int) -> None:
    """Checks what would crash a search, or silently mislead it.

    Args:
        index: Faiss index, in memory.
        path: its file, for messages.
        first, end: the rows that its ids may name are ``first <= row < end``.

    Raises:
        DatastoreError: for ids out of range or there twice, less or more ids than keys, parts of another
            metric, what is not trained, no list to visit, and a file of lists that was cut off.
    """
    inverted = _lists(index)
    if not (index.is_trained and (inverted is None or inverted.is_trained)):
        raise DatastoreError(f"the index {path} is not trained: {BUILD_AGAIN}")
    if inverted is not None:
        if inverted.quantizer.ntotal != inverted.nlist:
            raise DatastoreError(f"the index {path} lacks the centroids of its lists: {BUILD_AGAIN}")
        if inverted.metric_type != index.metric_type:
            raise DatastoreError(f"the lists of the index {path} are of another metric: {BUILD_AGAIN}")
        if inverted.nprobe < 1:
            raise DatastoreError(f"the index {path} visits no list ({inverted.nprobe}): {BUILD_AGAIN}")
    _check_own_file(inverted, path)
    seen: dict[str, NDArray[np.bool_]] = {}
    total = 0
    for where, ids, least, beyond in _all_ids(index, first, end):
        if not len(ids):
            continue
        smallest, largest = int(ids.min()), int(ids.max())
        if smallest < least or largest >= beyond:
            raise DatastoreError(
                f"the index {path} holds ids from {smallest:,} to {largest:,}, its datastore has rows "
                f"from {least:,} to {beyond - 1:,}: {BUILD_AGAIN}"
            )
        marks = seen.get(where)
        if marks is None:
            marks = seen[where] = np.zeros(beyond - least, dtype=bool)
        marks[ids - least] = True
        total += len(ids)
    named = sum(int(np.count_nonzero(marks)) for marks in seen.values())
    if named < total:
        raise DatastoreError(
            f"the index {path} lacks {total - named:,} rows of the datastore, others are there twice: "
            f"{BUILD_AGAIN}"
        )
    counted = count_ids(index)
    if counted is not None and counted != index.ntotal:
        raise DatastoreError(
            f"the index {path} holds {counted:,} ids for {index.ntotal:,} keys: {BUILD_AGAIN}"
        )


def _check_own_file(inverted: Any, path: str) -> None:
    """Lists may lie in a file of their own, which Faiss maps whatever its size is: to read behind its end
    ends the process."""
    faiss = import_faiss()
    lists: Any = faiss.downcast_InvertedLists(inverted.invlists) if inverted is not None else None
    on_disk: Any = getattr(faiss, "OnDiskInvertedLists", ())
    if not isinstance(lists, on_disk):
        return
    file = lists.filename
    found = os.path.getsize(file) if os.path.isfile(file) else 0
    if found < lists.totsize:
        raise DatastoreError(
            f"{file}, the lists of the index {path}, has {found:,} of {lists.totsize:,} bytes: it was cut "
            "off, copy it again or build the index again with trime-build-index"
        )


def count_ids(index: Any) -> int | None:
    """The number of ids that an index stores; None if it counts its keys instead."""
    mapped = _mapped(index)
    if mapped is not None:
        return len(mapped)
    inverted = _lists(index)
    return None if inverted is None else sum(len(ids) for ids in list_ids(inverted))


def stored_ids(index: Any) -> Iterator[Ids]:
    """The ids that an index stores, piece by piece; nothing if it counts its keys."""
    mapped = _mapped(index)
    if mapped is not None:
        yield mapped
    elif (inverted := _lists(index)) is not None:
        yield from list_ids(inverted)


def decoded_keys(index: Any, count: int) -> tuple[Ids, NDArray[np.float32]] | None:
    """Ids [n] and keys float32 [n, d] of about ``count`` keys, as the index approximates them.

    None for an index whose keys cannot be had.
    """
    faiss = import_faiss()
    draw = np.random.default_rng(0)
    inverted = _lists(index)
    try:
        if inverted is None:
            if _mapped(index) is not None:
                return None
            rows = np.unique(draw.integers(0, index.ntotal, count))
            return rows, np.stack([index.reconstruct(int(row)) for row in rows])
        if type(inverted).__name__ not in _DECODED:
            return None
        rows, keys = _decoded_of_lists(inverted, count, draw)
        if _mapped(index) is not None:
            rows = np.asarray(_mapped(index))[rows]
            index = faiss.downcast_index(index.index)
        if isinstance(index, faiss.IndexPreTransform):
            whole = np.empty((len(keys), index.d), dtype=np.float32)
            index.reverse_chain(len(keys), faiss.swig_ptr(keys), faiss.swig_ptr(whole))
            keys = whole
    except RuntimeError:
        return None
    return rows, keys


def _decoded_of_lists(
    inverted: Any, count: int, draw: np.random.Generator
) -> tuple[Ids, NDArray[np.float32]]:
    faiss = import_faiss()
    sizes = np.array([inverted.invlists.list_size(number) for number in range(inverted.nlist)])
    lists = draw.choice(len(sizes), count, p=sizes / sizes.sum())
    rows, keys = np.empty(count, dtype=np.int64), np.empty((count, inverted.d), dtype=np.float32)
    for place, number in enumerate(lists.tolist()):
        offset = int(draw.integers(sizes[number]))
        rows[place] = _ids_of(inverted, number, sizes[number])[offset]
        inverted.reconstruct_from_offset(number, offset, faiss.swig_ptr(keys[place]))
    return rows, keys


def list_ids(inverted: Any) -> Iterator[Ids]:
    """The ids of each list that has some."""
    for number in range(inverted.nlist):
        size = inverted.invlists.list_size(number)
        if size:
            yield _ids_of(inverted, number, size)


def _ids_of(inverted: Any, number: int, size: int) -> Ids:
    ids: Ids = import_faiss().rev_swig_ptr(inverted.invlists.get_ids(number), int(size))
    return ids


def _all_ids(index: Any, first: int, end: int) -> Iterator[tuple[str, Ids, int, int]]:
    """Where ids are stored, the ids, and the range [least, beyond) in which they must lie."""
    mapped, inverted = _mapped(index), _lists(index)
    if mapped is not None:
        yield "map", mapped, first, end
        # Ids inside of the map are positions in it, which Faiss does not check.
        first, end = 0, len(mapped)
    if inverted is not None:
        for ids in list_ids(inverted):
            yield "lists", ids, first, end


def _mapped(index: Any) -> Ids | None:
    faiss = import_faiss()
    if not isinstance(index, (faiss.IndexIDMap, faiss.IndexIDMap2)):
        return None
    ids: Ids = faiss.vector_to_array(index.id_map)
    return ids


def _lists(index: Any) -> Any:
    faiss = import_faiss()
    inverted = faiss.try_extract_index_ivf(index)
    return None if inverted is None else faiss.downcast_index(inverted)
