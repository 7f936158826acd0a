"""The files of indexes: opening, writing, giving them their names."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ...files import new_temporary
from ..datastore import Datastore, DatastoreError
from ..layout import values_path
from ..progress import checksum_with_progress
from .checks import BUILD_AGAIN, check_index
from .faiss_library import bounded_memory, faiss_error, import_faiss
from .manifest import IndexManifest

# What Faiss may take to read an index beside a multiple of its size: tables of 2 GiB, and a little.
_READING = 3 * 2**30


@dataclass(frozen=True)
class Index:
    """An index over the keys of a datastore, in memory.

    Attributes:
        path: its file.
        faiss: the Faiss index.
        manifest: None for an index of other tools.
        metric: ``ip``, ``l2`` or ``cos``: what it was built for.
    """

    path: str
    faiss: Any
    manifest: IndexManifest | None
    metric: str

    @property
    def dimension(self) -> int:
        """d of its keys."""
        return int(self.faiss.d)

    @property
    def rows(self) -> int:
        """Number of its keys."""
        return int(self.faiss.ntotal)

    @property
    def starting_point(self) -> int:
        """The row of its first key in the datastore."""
        return self.manifest.starting_point if self.manifest is not None else 0

    def check(self, store: Datastore, dimension: int) -> None:
        """Whether index, datastore and model belong together.

        Args:
            store: whose keys the index should hold.
            dimension: d of the model's keys.

        Raises:
            DatastoreError: if they do not.
        """
        if self.dimension != dimension:
            raise DatastoreError(
                f"the index {self.path} has dimension {self.dimension}, the keys of `model` {dimension}: it "
                "is another model's"
            )
        if self.rows + self.starting_point != store.rows:
            raise DatastoreError(
                f"the index {self.path} holds {self.rows:,} keys, the datastore {store.prefix} "
                f"{store.rows:,}: they do not belong together, or the index is not complete; build it again "
                "with trime-build-index"
            )
        if self.manifest is None:
            return
        values = store.manifest.values_checksum if store.manifest is not None else None
        if self.manifest.values_checksum is not None:
            values = values or checksum_with_progress(values_path(store.prefix))
        same = self.manifest.values_checksum in (None, values)
        if self.manifest.datastore != store.fingerprint() or not same:
            raise DatastoreError(
                f"the index {self.path} was built from another datastore than {store.prefix}: build it "
                "again with trime-build-index"
            )


def open_index(path: str, *, metric: str | None = None) -> Index:
    """Reads a complete index and its manifest.

    Args:
        path: the index file.
        metric: what the index must have been built for; None takes what it says. Without a manifest the
            index itself does not tell ``cos`` from ``ip``: this argument does, or the file's ending.

    Raises:
        DatastoreError: for a file that is missing, cut off, changed, incomplete or no index, and for another
            metric.
    """
    manifest = IndexManifest.read(path)
    exists = os.path.exists(path)
    if exists and not os.path.isfile(path):  # a named pipe would never end
        raise DatastoreError(f"the index {path} is no regular file: give the file that Faiss wrote")
    if not exists and (manifest is not None or os.path.exists(f"{path}.partial")):
        raise _incomplete(path, "")
    if manifest is not None and not (manifest.complete and right_size(manifest, path)):
        raise _incomplete(path, f" ({os.path.getsize(path):,} bytes, {manifest.bytes or 0:,} when it is)")
    noted = manifest.checksum if manifest is not None else None
    if noted is not None and checksum_with_progress(path) != noted:
        raise DatastoreError(
            f"the index {path} is damaged: its checksum is not the one of {path}.json; remove it and run "
            "trime-build-index again"
        )
    index = read_faiss(path, "missing, cut off, or no Faiss index; build it with trime-build-index")
    if manifest is not None and index.ntotal != manifest.rows:
        raise _incomplete(path, f" ({index.ntotal:,} of {manifest.rows:,} keys)")
    found = _metric(index, path, metric)
    if manifest is not None:
        if (manifest.metric == "l2") != (found == "l2") or manifest.dimension != index.d:
            raise DatastoreError(
                f"{path} is not the index that {path}.json describes ({found} / {manifest.metric}, dimension "
                f"{index.d} / {manifest.dimension}): {BUILD_AGAIN}"
            )
        found = manifest.metric
    if metric not in (None, found):
        raise DatastoreError(f"`metric` {metric}: the index {path} was built for {found}; pass that")
    first = manifest.starting_point if manifest is not None else 0
    check_index(index, path, first, first + int(index.ntotal))
    return Index(path, index, manifest, found)


def _incomplete(path: str, how: str) -> DatastoreError:
    return DatastoreError(
        f"the index {path} is not complete{how}: run trime-build-index again, it will continue"
    )


def _metric(index: Any, path: str, asked: str | None) -> str:
    faiss = import_faiss()
    if index.metric_type == faiss.METRIC_L2:
        return "l2"
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise DatastoreError(f"the index {path} is neither for inner product nor for L2")
    # Normalised keys or not, Faiss searches inner products.
    return "cos" if asked == "cos" or path.endswith(".cos") else "ip"


def right_size(manifest: IndexManifest, path: str) -> bool:
    """Whether the file is as large as its manifest says, if it says so."""
    return os.path.isfile(path) and manifest.bytes in (None, os.path.getsize(path))


def read_faiss(path: str, otherwise: str) -> Any:
    """The Faiss index of a file, complete or not; ``otherwise`` says what to do if there is none.

    Raises:
        DatastoreError: if there is none.
    """
    try:
        with bounded_memory(4 * os.path.getsize(path) + _READING):
            return import_faiss().read_index(path)
    except (RuntimeError, MemoryError, OSError) as error:
        reason = "".join(str(error).strip().splitlines()[-1:])
        raise DatastoreError(f"the index {path} cannot be read ({reason}): {otherwise}") from error


def write_faiss(index: Any, path: str) -> str:
    """Writes an index to the disk, to a temporary file beside ``path``; the name of that file.

    Raises:
        DatastoreError: if the disk is full.
    """
    file, name = new_temporary(path)
    try:
        import_faiss().write_index(index, name)
        os.fsync(file)
    except (RuntimeError, OSError) as error:
        remove(name)
        raise DatastoreError(f"cannot write {path} ({faiss_error(error)}): is the disk full?") from error
    finally:
        os.close(file)
    return name


def publish(file: str, path: str, manifest: IndexManifest) -> None:
    """Gives an index file the name ``path`` and its manifest; a kill leaves ``path`` with its manifest, or
    nothing that counts."""
    # Another index of the same size would agree with the new manifest.
    remove(path)
    verified(manifest, file).write(path)
    os.replace(file, path)


def verified(manifest: IndexManifest, file: str) -> IndexManifest:
    """A manifest that also holds size and checksum of the index file, which must be whole."""
    return replace(manifest, bytes=os.path.getsize(file), checksum=checksum_with_progress(file))


def remove(path: str) -> None:
    """Removes a file that may not be there."""
    with suppress(FileNotFoundError):
        os.unlink(path)
