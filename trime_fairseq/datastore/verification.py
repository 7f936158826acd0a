"""Reads the files of a datastore and its index, and reports everything that is wrong with them."""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..files import symbols_hash
from .contents import check_keys, check_values
from .datastore import Datastore, DatastoreError, Manifest, finite, open_datastore
from .dictionary import read_symbols
from .index.checks import BUILD_AGAIN, stored_ids
from .index.files import Index, open_index
from .layout import keys_path, manifest_path, values_path
from .legacy import likely_key_dtype
from .progress import checksum_with_progress

_WRITE_AGAIN = "remove it and write the datastore again"


class Finding(NamedTuple):
    """A sentence about a file; ``is_problem`` is False for what could not be checked."""

    is_problem: bool
    text: str


def verify(prefix: str, indexfile: str | None = None, dictionary: str | None = None) -> Iterator[Finding]:
    """Compares files with their sizes and checksums, values with the dictionary, keys with the index.

    Args:
        prefix: of the datastore.
        indexfile: its index.
        dictionary: DATA or its ``dict.txt``.

    Raises:
        DatastoreError: if there is nothing under this prefix, or no dictionary.
    """
    symbols = read_symbols(dictionary) if dictionary is not None else None
    index = None
    if indexfile is not None:
        try:
            index = open_index(indexfile)
        except DatastoreError as error:
            yield Finding(True, str(error))
    manifest = Manifest.read(prefix)
    if manifest is None and not os.path.exists(values_path(prefix)):
        raise DatastoreError(f"there is no datastore {prefix}: check the prefix")
    if manifest is not None and manifest.damage(prefix) and manifest.complete:
        yield Finding(True, f"{manifest.damage(prefix)}: run the command that wrote the datastore again")
        return
    try:
        dimension = index.dimension if index is not None else None
        fp16 = manifest is None and likely_key_dtype(prefix, dimension) == "float16"
        store = open_datastore(prefix, fp16=fp16, likely_dimension=dimension)
    except DatastoreError as error:
        yield Finding(True, str(error))
        return
    yield from _verify_values(store, symbols)
    if store.keys is not None:
        yield from _verify_keys(store, store.keys)
    if index is not None:
        yield from _verify_index(index, store)


def _verify_values(store: Datastore, symbols: list[str] | None) -> Iterator[Finding]:
    manifest = store.manifest
    if manifest is None:
        yield Finding(False, f"{store.prefix} has no manifest: its checksums and dictionary are not known")
    elif manifest.values_checksum is None:
        yield Finding(False, f"{manifest_path(store.prefix)} notes no checksums: an earlier version wrote it")
    try:
        check_values(store, len(symbols) if symbols is not None else None)
    except DatastoreError as error:
        yield Finding(True, str(error))
    if symbols is None:
        yield Finding(False, "the dictionary was not given (`dictionary`): values are not compared with it")
    elif manifest is not None and manifest.dictionary_hash not in (None, symbols_hash(symbols)):
        yield Finding(True, f"{store.prefix} was made with another dictionary")


def _verify_keys(store: Datastore, keys: NDArray[Any]) -> Iterator[Finding]:
    """In one pass: their checksum, and whether they are numbers."""
    path = keys_path(store.prefix, str(keys.dtype))
    noted = store.manifest.keys_checksum if store.manifest is not None else None
    bad: list[NDArray[np.int64]] = []

    def visit(offset: int, piece: bytes) -> None:
        numbers = np.frombuffer(piece, dtype=keys.dtype)
        if not finite(numbers):
            places = offset // keys.itemsize + np.flatnonzero(~np.isfinite(numbers))
            bad.append(np.unique(places // keys.shape[1]))

    if checksum_with_progress(path, visit) != noted and noted is not None:
        yield Finding(True, f"{path} is damaged: its checksum is not the one of the manifest: {_WRITE_AGAIN}")
    if bad:
        rows = np.unique(np.concatenate(bad))
        first = ", ".join(map(str, rows[:5].tolist())) + (", ..." if len(rows) > 5 else "")
        which = f"keys of {len(rows):,} rows ({first})"
        yield Finding(True, f"{path}: {which} hold NaN or infinity: {_WRITE_AGAIN}")


def _verify_index(index: Index, store: Datastore) -> Iterator[Finding]:
    if index.manifest is None:
        yield Finding(False, f"the index {index.path} has no manifest: its checksum and store are not known")
    elif index.manifest.checksum is None:
        yield Finding(False, f"{index.path}.json notes no checksum: an earlier version wrote it")
    try:
        index.check(store, index.dimension)
    except DatastoreError as error:
        yield Finding(True, str(error))
        return
    times = np.zeros(store.rows, dtype=np.uint8)
    counted = False
    for ids in stored_ids(index.faiss):
        counted = True
        np.add.at(times, ids, 1)
    if counted and (times[index.starting_point :] != 1).any():
        missing = int((times[index.starting_point :] == 0).sum())
        yield Finding(
            True,
            f"the index {index.path} lacks {missing:,} rows of the datastore, others are there twice: "
            f"{BUILD_AGAIN}",
        )
    try:
        check_keys(index, store)
    except DatastoreError as error:
        yield Finding(True, str(error))
