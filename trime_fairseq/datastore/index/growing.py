"""An index that grows chunk by chunk and survives a kill.

Beside the finished index NAME.METRIC there may be

    NAME.METRIC.trained    the trained index without keys, kept for the next time
    NAME.METRIC.partial    the index so far

each with a manifest of its own. A manifest is written before its index gets its name, and an index counts if
it agrees with its manifest. So what the last run left is one of four stages:

    stage       on the disk     what comes next
    none        nothing         train()           -> trained
    trained     .trained        add() chunks      -> partial, when the index is saved
    partial     .partial        add() the rest, finish()    -> complete
    complete    NAME.METRIC     nothing
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...files import Differences, Lock, check_writable, remove_leftovers
from ...flags.bounds import check_argument
from ..datastore import DatastoreError
from ..float_keys import check_memory
from ..progress import checksum_with_progress
from .adding import Adder, adder, check_kind, train
from .config import PROBES, ROWS
from .faiss_library import import_faiss
from .files import open_index, publish, read_faiss, remove, right_size, write_faiss
from .manifest import FINISHED, PARTIAL, TRAINED, IndexManifest, index_manifest_path

logger = logging.getLogger(__name__)

Stage = Literal["none", "trained", "partial", "complete"]


class GrowingIndex:
    """Rows ``starting_point``, ``starting_point + 1``, ... of a datastore, in chunks.

    A run that was killed and continued ends with the same bytes as one that was not, if it adds the same
    chunks (indexes of graphs, HNSW..., excepted: Faiss does not store the state of their random numbers).

    Args:
        path: the file of the finished index.
        manifest: what it will hold.
        new_index: makes the untrained index.
        probe: number of lists searched by default, for indexes with lists.
        save_every: seconds between two saves, which may not take more than a twentieth of the time either;
            0 saves after each chunk.
        before_save: is called before the index so far is saved.

    Attributes:
        stage: what is on the disk of this index; an index of something else does not count.

    Raises:
        DatastoreError: if the file cannot be written, holds another program's index, or is built by another
            process; or if GPUs are missing.
    """

    def __init__(
        self,
        path: str,
        manifest: IndexManifest,
        new_index: Callable[[], Any],
        *,
        probe: int,
        use_gpu: bool = False,
        save_every: float = 30.0,
        before_save: Callable[[], None] | None = None,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self._index: Any = None
        self._probe = probe
        self._use_gpu = use_gpu
        self._new_index = new_index
        self._partial = f"{path}.partial"
        self._trained = f"{path}.trained"
        self._save_every = save_every
        self._save_seconds = 0.0
        self._last_save = time.monotonic()
        self._is_saved = False
        self._saved_checksum: str | None = None
        self._before_save = before_save
        self._adder: Adder | None = None
        check_argument("chunk", manifest.chunk, ROWS, DatastoreError)
        check_argument("probe", probe, PROBES, DatastoreError)
        for name, keys in (("chunk", manifest.chunk), ("training_keys", manifest.training_keys)):
            check_memory(name, keys, min(keys, manifest.rows), manifest.dimension)
        check_kind(new_index, manifest.starting_point, use_gpu)
        try:
            check_writable("`name`", path)
        except ValueError as error:
            raise DatastoreError(str(error)) from error
        self._lock = Lock(f"{path}.lock")
        if not self._lock.acquire():
            raise DatastoreError(f"another process builds the index {path}: wait for it, or end it")
        try:
            self.stage = self._stage_on_disk()
        except BaseException:
            self.close()
            raise

    @property
    def next_row(self) -> int:
        """The row of the datastore that is added next."""
        return self.manifest.starting_point + (self._index.ntotal if self._index is not None else 0)

    def is_trained(self) -> bool:
        """Whether the trained index is there, whatever the stage."""
        return self._counts(self._trained, TRAINED, "training again")

    def open(self) -> None:
        """Takes up the ``partial`` or ``trained`` index; removes a half-built one that does not count."""
        self._remove_temporary()
        if self.stage == "partial":
            if self._take_up(self._partial):
                logger.info(f"TRIME: continuing {self._partial} from row {self.next_row:,}")
                return
            self.stage = "trained" if self.is_trained() else "none"
        self._remove_partial()
        if self.stage == "trained":
            if self._take_up(self._trained):
                logger.info(f"TRIME: using the trained index {self._trained}")
            else:
                self.stage = "none"

    def train(self, keys: NDArray[np.float32]) -> None:
        """Trains a new index with keys [n, d] and keeps it for the next time.

        Raises:
            DatastoreError: if there are too few keys, or the disk is full.
        """
        logger.info(f"TRIME: training {self.manifest.factory} with {len(keys):,} keys")
        begin = time.monotonic()
        self._index = self._new_index()
        train(self._index, keys, self._use_gpu)
        self.manifest = replace(self.manifest, training_seconds=time.monotonic() - begin)
        publish(write_faiss(self._index, self._trained), self._trained, self.manifest)
        self.stage = "trained"
        self._set_probe()

    def add(self, keys: NDArray[np.float32]) -> None:
        """Adds the next chunk of keys [n, d]; saves the index from time to time."""
        if self._adder is None:
            self._adder = adder(self._index, self.manifest.starting_point, self._use_gpu)
        begin = time.monotonic()
        ids = np.arange(self.next_row, self.next_row + len(keys), dtype=np.int64)
        self._adder.add(keys, ids)
        self._is_saved = False
        now = time.monotonic()
        self.manifest = replace(self.manifest, adding_seconds=self.manifest.adding_seconds + now - begin)
        wait = max(self._save_every, 20 * self._save_seconds) if self._save_every else 0.0
        if now - self._last_save >= wait and self._index.ntotal < self.manifest.rows:
            self._save()

    def finish(self) -> None:
        """Call once after the last row: gives the index its name, removes what is left of the building. In an
        index that was complete before, only ``probe`` may change."""
        if self.stage != "complete" or self._take_up_for_probe():
            if not self._is_saved:
                self._save()
            publish(self._partial, self.path, replace(self.manifest, complete=True))
            self.stage = "complete"
        self._remove_partial()
        self._remove_temporary()

    def start_over(self) -> None:
        """Before :meth:`open`: back to ``trained`` or ``none``, what was added does not count any more.

        A finished index stays in its place until another one is done, but without its manifest.
        """
        remove(index_manifest_path(self.path))
        self._remove_partial()
        self.stage = self._stage_on_disk()

    def close(self) -> None:
        """Lets other processes build this index; may be called at any time."""
        self._lock.release()

    def _stage_on_disk(self) -> Stage:
        self._refuse_foreign()
        if self._counts(self.path, FINISHED, "it will be replaced when the new index is done"):
            return "complete"
        if self._counts(self._partial, PARTIAL, "starting anew"):
            return "partial"
        return "trained" if self.is_trained() else "none"

    def _refuse_foreign(self) -> None:
        """Raises DatastoreError for a file of another program. :meth:`start_over` leaves an index without
        its manifest, too, but with a trained one beside it."""
        ours = any(IndexManifest.read(path) is not None for path in (self.path, self._trained))
        if os.path.exists(self.path) and not ours:
            raise DatastoreError(
                f"`name`: {self.path} was not written by this builder, as it has no manifest "
                f"{index_manifest_path(self.path)}: choose another `name`, or remove it"
            )

    def _counts(self, path: str, fields: tuple[str, ...], otherwise: str) -> bool:
        """Whether an index agrees with its manifest, and that with the one wanted; logs why not."""
        there = IndexManifest.read(path)
        if not os.path.exists(path):
            return False
        if there is None:
            logger.info(f"TRIME: {path} has no manifest, {otherwise}")
        elif differing := Differences(
            there.differences(self.manifest, fields)
            | there.differences(self.manifest, ("values_checksum",), unknown_differs=False)
        ):
            logger.info(f"TRIME: {path} is of another index, {otherwise}: {differing} (there / now)")
        elif right_size(there, path) and (path != self.path or _is_complete(there, path)):
            return True
        else:
            logger.info(f"TRIME: {path} is not the one of its manifest, {otherwise}: was it cut off?")
        return False

    def _take_up(self, path: str) -> bool:
        """Reads an index that agrees with its manifest; False, and a line says why, if it is damaged."""
        there = IndexManifest.read(path)
        assert there is not None
        try:
            checksum = checksum_with_progress(path)
            if there.checksum is not None and checksum not in (there.checksum, there.replaced_checksum):
                raise DatastoreError("its checksum is another")
            index = read_faiss(path, "it is no index")
            if index.ntotal > there.rows or (index.ntotal < there.rows and index.ntotal % there.chunk):
                raise DatastoreError(f"it has {index.ntotal:,} of {there.rows:,} keys")
        except DatastoreError as error:
            logger.warning(f"TRIME: {path} is damaged and does not count ({error})")
            return False
        self.manifest = replace(
            self.manifest, training_seconds=there.training_seconds, adding_seconds=there.adding_seconds
        )
        self._index = index
        self._saved_checksum = checksum if path == self._partial else None
        # Another ``probe`` is another file.
        self._is_saved = not self._set_probe() and path == self._partial
        return True

    def _take_up_for_probe(self) -> bool:
        """Whether the complete index has another ``probe`` than the one wanted."""
        there = IndexManifest.read(self.path)
        assert there is not None
        if there.probe in (None, self._probe):
            return False
        # With the ``chunk`` of this run, or one that is killed while the index gets its name could not go on.
        self.manifest = replace(there, complete=False, bytes=None, checksum=None, chunk=self.manifest.chunk)
        if not self._take_up(self.path):
            raise DatastoreError(f"the index {self.path} is damaged: remove it and run the command again")
        return True

    def _save(self) -> None:
        begin = time.monotonic()
        if self._before_save is not None:
            self._before_save()
        file = write_faiss(self._index, self._partial)
        checksum = checksum_with_progress(file)
        # Without a size it is true of the partial index before and of this one.
        described = replace(self.manifest, checksum=checksum, replaced_checksum=self._saved_checksum)
        described.write(self._partial)
        os.replace(file, self._partial)
        self._saved_checksum = checksum
        self.stage = "partial"
        self._is_saved = True
        self._last_save = time.monotonic()
        self._save_seconds = self._last_save - begin

    def _remove_partial(self) -> None:
        remove(self._partial)
        remove(index_manifest_path(self._partial))

    def _remove_temporary(self) -> None:
        """Removes what killed runs have left, also those of version 0.1.0."""
        for path in (self.path, self._trained, self._partial):
            remove_leftovers(path)
            remove_leftovers(index_manifest_path(path))
            if os.path.lexists(f"{path}.tmp"):
                remove(f"{path}.tmp")

    def _set_probe(self) -> bool:
        """Sets ``probe`` in the index that is now open; True if it had another one."""
        self._last_save = time.monotonic()
        inverted = import_faiss().try_extract_index_ivf(self._index)
        self.manifest = replace(self.manifest, probe=self._probe if inverted is not None else None)
        if inverted is None or inverted.nprobe == self._probe:
            return False
        inverted.nprobe = self._probe
        return True


def _is_complete(manifest: IndexManifest, path: str) -> bool:
    if not manifest.complete or manifest.bytes is not None:
        return manifest.complete
    # Version 0.1.0 noted no size: the index itself tells.
    try:
        open_index(path)
    except DatastoreError:
        return False
    return True
