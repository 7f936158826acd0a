"""An index that grows chunk by chunk and survives a kill.

Beside the finished index NAME.METRIC there may be

    NAME.METRIC.trained    the trained index without keys, kept for the next time
    NAME.METRIC.partial    the index so far

each with a JSON file that says what it was made from (:class:`~.index_config.IndexSidecar`).
"""

import glob
import logging
import os
import time
from dataclasses import replace
from typing import Any, Callable, Optional

import numpy as np
from numpy.typing import NDArray

from ..files import Lock, check_writable
from .adding import Adder, adder, check_kind, train
from .datastore import DatastoreError
from .index.config import FINISHED, PARTIAL, TRAINED, IndexSidecar, import_faiss, sidecar_path
from .index.files import read_index, remove, write_index

logger = logging.getLogger(__name__)


class GrowingIndex:
    """Rows ``starting_point``, ``starting_point + 1``, ... of a datastore, in chunks.

    A run that was killed and continued ends with the same bytes as one that was not, if it adds the same
    chunks (indexes of graphs, HNSW..., excepted: Faiss does not store the state of their random numbers).

    Args:
        path: the file of the finished index.
        plan: what it will hold.
        new_index: makes the untrained index.
        probe: number of lists searched by default, for indexes with lists.
        save_every: seconds between two saves, which may not take more than a twentieth of the time either;
            0 saves after each chunk.
        before_save: is called before the index so far is saved.

    Raises:
        DatastoreError: if the file cannot be written, another process builds it, or GPUs are missing.
    """

    def __init__(
        self,
        path: str,
        plan: IndexSidecar,
        new_index: Callable[[], Any],
        *,
        probe: int,
        use_gpu: bool = False,
        save_every: float = 30.0,
        before_save: Optional[Callable[[], None]] = None,
    ) -> None:
        self.path = path
        self.plan = plan
        self.index: Any = None
        self._probe = probe
        self._use_gpu = use_gpu
        self._new_index = new_index
        self._partial = f"{path}.partial"
        self._trained = f"{path}.trained"
        self._save_every = save_every
        self._save_seconds = 0.0
        self._last_save = time.monotonic()
        self._saved_rows = -1
        self._before_save = before_save
        self._adder: Optional[Adder] = None
        if plan.chunk < 1:
            raise DatastoreError("--num_keys_to_add_at_a_time must be at least 1")
        if probe < 1:
            raise DatastoreError("--probe must be at least 1")
        check_kind(new_index, plan.starting_point, use_gpu)
        try:
            check_writable("--faiss_index", path)
        except ValueError as error:
            raise DatastoreError(str(error)) from error
        self._lock = Lock(f"{path}.lock")
        if not self._lock.acquire():
            raise DatastoreError(f"another process builds the index {path}: wait for it, or end it")

    @property
    def next_row(self) -> int:
        """The row of the datastore that is added next."""
        return self.plan.starting_point + (self.index.ntotal if self.index is not None else 0)

    def close(self) -> None:
        """Lets other processes build this index."""
        self._lock.release()

    def is_finished(self) -> bool:
        """Whether the finished index is there; logs what differs if another one is."""
        if not os.path.exists(self.path):
            return False
        there = IndexSidecar.read(self.path)
        if there is None:
            if not self.was_just_finished():
                logger.info(
                    f"TRIME: {self.path} has no description, it will be replaced when the new index is done"
                )
            return False
        if differing := there.differences(self.plan, FINISHED):
            logger.info(
                f"TRIME: {self.path} will be replaced when the new index is done: {differing} (there / now)"
            )
            return False
        return there.complete

    def was_just_finished(self) -> bool:
        """Whether a kill came between the index' getting its name and :meth:`clear`."""
        part = IndexSidecar.read(self._partial)
        return (
            part is not None
            and part.complete
            and not part.differences(self.plan, FINISHED)
            and os.path.exists(self.path)
            and not os.path.exists(self._partial)
        )

    def resume(self) -> bool:
        """Whether an earlier run left an index to go on with; otherwise its remains are removed."""
        there = IndexSidecar.read(self._partial)
        differing = there.differences(self.plan, PARTIAL) if there is not None else None
        if differing:
            logger.info(
                f"TRIME: {self._partial} is of another index, starting anew: {differing} (there / now)"
            )
        if there is None or differing or not os.path.exists(self._partial):
            self.start_over()
            return False
        self.index = read_index(self._partial)
        self.plan = replace(
            self.plan, training_seconds=there.training_seconds, adding_seconds=there.adding_seconds
        )
        logger.info(f"TRIME: continuing {self._partial} from row {self.next_row:,}")
        # Another --probe is another file.
        self._saved_rows = -1 if self._prepare() else self.index.ntotal
        return True

    def start_over(self) -> None:
        """Removes what an earlier run left half built."""
        remove(self._partial)
        remove(sidecar_path(self._partial))

    def load_trained(self) -> bool:
        """Whether the trained index is there; logs what differs if another one is."""
        there = IndexSidecar.read(self._trained)
        if there is None or not os.path.exists(self._trained):
            return False
        if differing := there.differences(self.plan, TRAINED):
            logger.info(
                f"TRIME: training again, {self._trained} is of another index: {differing} (there / now)"
            )
            return False
        logger.info(f"TRIME: using the trained index {self._trained}")
        self.index = read_index(self._trained)
        self.plan = replace(self.plan, training_seconds=there.training_seconds)
        self._prepare()
        return True

    def train(self, keys: NDArray[np.float32]) -> None:
        """Trains a new index with keys [n, d] and keeps it for the next time.

        Raises:
            DatastoreError: if there are too few keys, or the disk is full.
        """
        logger.info(f"TRIME: training {self.plan.factory} with {len(keys):,} keys")
        begin = time.monotonic()
        self.index = self._new_index()
        train(self.index, keys, self._use_gpu)
        self.plan = replace(self.plan, training_seconds=time.monotonic() - begin)
        remove(sidecar_path(self._trained))
        write_index(self.index, self._trained)
        self.plan.write(self._trained)
        self._prepare()

    def add(self, keys: NDArray[np.float32]) -> None:
        """Adds the next chunk of keys [n, d]; saves the index from time to time."""
        assert self._adder is not None
        begin = time.monotonic()
        ids = np.arange(self.next_row, self.next_row + len(keys), dtype=np.int64)
        self._adder.add(keys, ids)
        now = time.monotonic()
        self.plan = replace(self.plan, adding_seconds=self.plan.adding_seconds + now - begin)
        wait = max(self._save_every, 20 * self._save_seconds) if self._save_every else 0.0
        if now - self._last_save >= wait and self.index.ntotal < self.plan.rows:
            self._save()

    def finish(self) -> None:
        """Gives the index its name; until :meth:`clear`, :meth:`was_just_finished` says so."""
        if not self.was_just_finished():
            if self.index.ntotal != self._saved_rows:
                self._save()
            replace(self.plan, complete=True).write(self._partial)
            # No moment at which the description is of another index.
            remove(sidecar_path(self.path))
            os.replace(self._partial, self.path)
        part = IndexSidecar.read(self._partial)
        assert part is not None
        part.write(self.path)

    def clear(self) -> None:
        """Removes what is left of the building."""
        self.start_over()
        # Of runs that were killed while they wrote.
        for file in glob.glob(f"{glob.escape(self.path)}.*tmp"):
            remove(file)

    def reopen(self) -> bool:
        """Takes up the finished index if another ``probe`` is wanted than it has."""
        there = IndexSidecar.read(self.path)
        assert there is not None
        if there.probe in (None, self._probe):
            return False
        self.index = read_index(self.path)
        self.plan = replace(there, complete=False)
        return self._set_probe()

    def _save(self) -> None:
        begin = time.monotonic()
        if self._before_save is not None:
            self._before_save()
        # The description first: it holds for all partial indexes of this run.
        self.plan.write(self._partial)
        write_index(self.index, self._partial)
        self._saved_rows = self.index.ntotal
        self._last_save = time.monotonic()
        self._save_seconds = self._last_save - begin

    def _prepare(self) -> bool:
        """Makes the index ready to grow; whether its file had another ``probe``."""
        self._adder = adder(self.index, self.plan.starting_point, self._use_gpu)
        self._last_save = time.monotonic()
        return self._set_probe()

    def _set_probe(self) -> bool:
        inverted = import_faiss().try_extract_index_ivf(self.index)
        self.plan = replace(self.plan, probe=self._probe if inverted is not None else None)
        if inverted is None or inverted.nprobe == self._probe:
            return False
        inverted.nprobe = self._probe
        return True
