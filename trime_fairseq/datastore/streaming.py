"""Builds the index of a datastore straight from the keys that come: they are never stored."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .datastore import DatastoreError, Manifest
from .float_keys import check_finite, float_keys
from .index.config import IndexConfig, index_path
from .index.growing import GrowingIndex
from .index.manifest import IndexManifest
from .layout import values_path
from .partial import PartialArray
from .progress import checksum_with_progress
from .writer import lock_store, refuse_other_store, store_is_complete

logger = logging.getLogger(__name__)


class StreamingIndex:
    """A :class:`~.background.RowSink` that keeps values and an index of the keys.

    Trains with the first ``config.training_keys`` keys, then adds chunks counted from row 0, however the rows
    come: a run that was killed and continued ends with the same files as one that was not. Until the index
    is trained, the keys for training are held in memory in their own type; then, less than a chunk.

    Args:
        prefix: P of :mod:`.layout`: values and manifest.
        manifest: what will be in the store.
        name: the index becomes NAME.METRIC, its manifest NAME.METRIC.json.
        chunk, probe, use_gpu, save_every: see :func:`~.builder.build_index`.

    Attributes:
        begin, end, resume_row, key_dtype: see :class:`~.background.RowSink`.

    Raises:
        DatastoreError: if something else is there under the prefix, another process writes the store or the
            index, the index cannot be made, or the disk has no room.
    """

    def __init__(
        self,
        prefix: str,
        manifest: Manifest,
        config: IndexConfig,
        name: str,
        *,
        chunk: int = 1_000_000,
        probe: int = 8,
        use_gpu: bool = False,
        save_every: float = 30.0,
    ) -> None:
        if manifest.dimension != config.dimension:
            raise DatastoreError(
                f"keys of dimension {manifest.dimension} in an index of {config.dimension} (`dimension`)"
            )
        config.check_rows(manifest.rows)
        self.prefix = prefix
        self.manifest = replace(manifest, complete=False, keys_stored=False, num_shards=1)
        self.begin, self.end = 0, manifest.rows
        self.key_dtype = manifest.key_dtype
        self._config = config
        self._chunk = chunk
        self._is_done = False
        self._values: PartialArray | None = None
        self._growing: GrowingIndex | None = None
        # The lock of a store written by one process.
        self._lock = lock_store(prefix, 0, 1)
        try:
            refuse_other_store(prefix, self.manifest)
            index_manifest = IndexManifest.describe(
                config,
                self.manifest,
                datastore=self.manifest.fingerprint(),
                datastore_rows=manifest.rows,
                training="first",
                chunk=chunk,
            )
            self._growing = GrowingIndex(
                index_path(name, config.metric),
                index_manifest,
                config.new_index,
                probe=probe,
                use_gpu=use_gpu,
                save_every=save_every,
                before_save=self._sync_values,
            )
            self.resume_row = self._resume(self._growing)
        except BaseException:
            self.close()
            raise
        self._next_row = self.resume_row
        # Keys of the rows [_next_row - _held, _next_row).
        self._held = 0
        self._buffer = self._new_buffer()

    def write(self, row: int, keys: NDArray[Any], values: NDArray[Any]) -> None:
        """See :class:`~.background.RowSink`.

        Raises:
            DatastoreError: for keys with NaN or infinity, values of another type than int64, missing rows,
                and a full disk.
        """
        if values.dtype != np.int64 or keys.dtype != np.dtype(self.key_dtype):
            raise DatastoreError(
                f"{keys.dtype} keys and {values.dtype} values, not {self.key_dtype} and int64"
            )
        if row > self._next_row or row + len(keys) > self.end or len(keys) != len(values):
            raise DatastoreError(
                f"rows {row:,} to {row + len(keys):,} came, but {self._next_row:,} of {self.end:,} is next"
            )
        skip = self._next_row - row
        keys, values = keys[skip:], values[skip:]
        if not len(keys):
            return
        check_finite(keys, np.arange(self._next_row, self._next_row + len(keys)))
        self._write_values(values)
        while len(keys):
            taken = min(len(keys), len(self._buffer) - self._held)
            self._buffer[self._held : self._held + taken] = keys[:taken]
            self._held += taken
            self._next_row += taken
            keys = keys[taken:]
            if self._held == len(self._buffer) or self._next_row == self.end:
                self._add_held()

    def finish(self) -> None:
        """Call once after the last row: gives values, index and manifest their names, in this order.

        Raises:
            DatastoreError: if rows are missing, or the disk is full.
        """
        assert self._growing is not None
        if self._next_row != self.end:
            raise DatastoreError(f"{self.prefix}: only {self._next_row:,} of {self.end:,} rows came")
        if self._is_done:
            return
        if self._values is not None:
            self._sync_values()
            self._values.complete()
        self._growing.finish()
        if not store_is_complete(self.prefix, self.manifest):
            self.manifest.completed(self.prefix, checksum_with_progress).write(self.prefix)
        self._is_done = True
        logger.info(f"TRIME: {self.prefix} and {self._growing.path} are complete: {self.end:,} rows")

    def close(self) -> None:
        """Releases files and locks; may be called at any time."""
        if self._values is not None:
            self._values.close()
        if self._growing is not None:
            self._growing.close()
        self._lock.release()

    def _resume(self, growing: GrowingIndex) -> int:
        """Opens what is there; the first row that is missing."""
        path = values_path(self.prefix)
        stored = store_is_complete(self.prefix, self.manifest)
        if not stored:
            self.manifest.write(self.prefix)
        values = PartialArray(path, "int64", self.end, 1)
        self._values = None if values.is_complete() else values
        if values.is_new() or (growing.stage == "complete" and self._values is not None):
            # Values get their name before the index. Without them it cannot be continued.
            growing.start_over()
        if growing.stage != "complete":
            growing.open()
            return growing.next_row
        if stored:
            growing.finish()
            self._is_done = True
            logger.info(f"TRIME: {self.prefix} and {growing.path} are there already, complete")
        return self.end

    def _new_buffer(self) -> NDArray[Any]:
        assert self._growing is not None
        rows = self._chunk
        if self._growing.stage == "none":
            # Whole chunks, so that nothing is left over when the index is trained.
            rows *= -(-self._config.training_keys // self._chunk)
        return np.empty((min(rows, self.end), self.manifest.dimension), dtype=self.key_dtype)

    def _add_held(self) -> None:
        assert self._growing is not None
        held, metric = self._buffer[: self._held], self._config.metric
        if self._growing.stage == "none":
            self._growing.train(float_keys(held[: self._config.training_keys], metric))
        for begin in range(0, len(held), self._chunk):
            self._growing.add(float_keys(held[begin : begin + self._chunk], metric))
        self._held = 0
        if len(self._buffer) > self._chunk:
            self._buffer = self._new_buffer()

    def _write_values(self, values: NDArray[np.int64]) -> None:
        if self._values is None:
            return
        try:
            self._values.write(self._next_row, values)
        except OSError as error:
            raise DatastoreError(
                f"{self.prefix}: {error.strerror} after {self._next_row:,} rows: make room and run the "
                "command again, it will continue"
            ) from error

    def _sync_values(self) -> None:
        if self._values is not None:
            self._values.sync()
