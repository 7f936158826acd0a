"""Writes a datastore row by row: continues after a kill, several processes fill one store."""

import logging
import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from ..files import Lock, read_json, write_json
from .datastore import DatastoreError, Manifest, finite, keys_path, manifest_path, values_path
from .partial import PartialArray

logger = logging.getLogger(__name__)


class DatastoreWriter:
    """Writes the rows [begin, end) of a datastore; whoever completes the last range completes the store.

    Rows are synced to the disk and their number is noted in ``P.shard-I-of-N.json`` from time to time, in
    this order: after a kill the process goes on from there, and the files end the same.

    Args:
        prefix: P of :mod:`trime_fairseq.datastore.datastore`.
        manifest: what will be in the store.
        begin, end: the rows of this process.
        shard_id: which of the ``manifest.num_shards`` ranges that is.
        note_every: seconds between notes of progress.

    Raises:
        DatastoreError: if something else is there under this prefix, another process writes this range, or
            the disk has no room.
    """

    def __init__(
        self,
        prefix: str,
        manifest: Manifest,
        begin: int,
        end: int,
        shard_id: int = 0,
        note_every: float = 10.0,
    ) -> None:
        self.prefix = prefix
        self.manifest = replace(manifest, complete=False, keys_stored=True)
        self.begin, self.end = begin, end
        self.key_dtype = manifest.key_dtype
        self._shard_id = shard_id
        self._lock = Lock(f"{self._note(shard_id)}.lock")
        if not self._lock.acquire():
            raise DatastoreError(
                f"another process writes the datastore {prefix} (shard {shard_id} of {manifest.num_shards})"
            )
        try:
            refuse_other_store(prefix, self.manifest)
            self.is_complete = store_is_complete(prefix, self.manifest)
            self.resume_row = end if self.is_complete else self._noted(shard_id)
            rows, dimension = manifest.rows, manifest.dimension
            # Keys and values.
            self._arrays: tuple[PartialArray, ...] = ()
            if not self.is_complete:
                self.manifest.write(prefix)
                self._arrays = (
                    PartialArray(keys_path(prefix, self.key_dtype), self.key_dtype, rows, dimension),
                    PartialArray(values_path(prefix), manifest.value_dtype, rows, 1),
                )
                if any(array.is_new() for array in self._arrays):
                    self._forget_notes()
                    self.resume_row = begin
        except BaseException:
            self._lock.release()
            raise
        self._note_every = note_every
        self._last_note = time.monotonic()
        self._done = self.resume_row

    def write(self, row: int, keys: NDArray[Any], values: NDArray[Any]) -> None:
        """See :class:`trime_fairseq.datastore.background.RowSink`.

        Raises:
            DatastoreError: for keys with NaN or infinity, and for a full disk.
        """
        assert row <= self._done
        assert row + len(keys) <= self.end
        if not finite(keys):
            raise DatastoreError(
                f"keys of rows {row:,} to {row + len(keys):,} hold NaN or infinity: " + self._overflow_hint()
            )
        try:
            contents = keys, values.astype(self.manifest.value_dtype, copy=False)
            for array, content in zip(self._arrays, contents):
                array.write(row, content)
        except OSError as error:
            raise DatastoreError(
                f"{self.prefix}: {error.strerror} after {row:,} rows: make room and run the command again, "
                "it will continue"
            ) from error
        self._done = max(self._done, row + len(keys))
        if time.monotonic() - self._last_note >= self._note_every:
            self._take_note()

    def finish(self) -> None:
        """Call once after the last row: notes that this range is complete; if all are, completes the store.

        Raises:
            DatastoreError: if rows are missing.
        """
        if self.is_complete:
            return
        if self._done != self.end:
            raise DatastoreError(f"{self.prefix}: {self._done:,} of {self.end:,} rows were written")
        self._take_note()
        last = Lock(f"{manifest_path(self.prefix)}.lock")
        last.acquire(wait=True)
        try:
            self._complete_store()
        finally:
            last.release()

    def close(self) -> None:
        """Releases files and locks; may be called at any time."""
        for array in self._arrays:
            array.close()
        self._lock.release()

    def _complete_store(self) -> None:
        shards = range(self.manifest.num_shards)
        if store_is_complete(self.prefix, self.manifest):
            return
        missing = [s for s in shards if not self._range_is_complete(s)]
        if missing:
            names = ", ".join(map(str, missing))
            logger.info(f"TRIME: {self.prefix} will be complete when shard {names} is done, too")
            return
        for array in self._arrays:
            array.complete()
        replace(self.manifest, complete=True).write(self.prefix)
        for shard in shards:
            os.unlink(self._note(shard))
        logger.info(f"TRIME: the datastore {self.prefix} is complete: {self.manifest.rows:,} rows")

    def _note(self, shard_id: int) -> str:
        return f"{self.prefix}.shard-{shard_id}-of-{self.manifest.num_shards}.json"

    def _take_note(self) -> None:
        for array in self._arrays:
            array.sync()
        write_json(self._note(self._shard_id), {"begin": self.begin, "end": self.end, "done": self._done})
        self._last_note = time.monotonic()

    def _noted(self, shard_id: int) -> int:
        """The first row that is missing."""
        if not os.path.exists(self._note(shard_id)):
            return self.begin
        note = read_json(self._note(shard_id))
        if (note["begin"], note["end"]) != (self.begin, self.end):
            raise DatastoreError(
                f"{self._note(shard_id)} is of rows {note['begin']:,} to {note['end']:,}, this run would "
                f"write {self.begin:,} to {self.end:,}: continue with the same `begin` and `end`, "
                f"or remove {self.prefix}* to start anew"
            )
        return int(note["done"])

    def _forget_notes(self) -> None:
        """Removes the notes of all processes, whose arrays were removed."""
        for shard in range(self.manifest.num_shards):
            with suppress(FileNotFoundError):
                os.unlink(self._note(shard))

    def _range_is_complete(self, shard_id: int) -> bool:
        if not os.path.exists(self._note(shard_id)):
            return False
        note = read_json(self._note(shard_id))
        return bool(note["done"] == note["end"])

    def _overflow_hint(self) -> str:
        if self.key_dtype == "float16":
            return "they may be too large for float16 (`key_dtype`): store float32"
        return "the model computes no numbers there"


def store_is_complete(prefix: str, manifest: Manifest) -> bool:
    """Whether the store described by ``manifest`` is there."""
    there = Manifest.read(prefix)
    return there is not None and there.complete and not there.conflicts(manifest, "num_shards")


def refuse_other_store(prefix: str, manifest: Manifest) -> None:
    """Raises DatastoreError if something else than (a part of) this store is there under its prefix."""
    there = Manifest.read(prefix)
    if there is None:
        for path in (keys_path(prefix, manifest.key_dtype), values_path(prefix)):
            if os.path.exists(path):
                raise DatastoreError(
                    f"{path} is there already, without a manifest: remove it, or choose another `prefix`"
                )
        return
    differing = there.conflicts(manifest, *(["num_shards"] if there.complete else []))
    if differing:
        state = "a complete datastore" if there.complete else "an unfinished datastore"
        raise DatastoreError(
            f"{prefix} is {state} of something else (there / here: {differing}): continue it with the "
            f"same settings, remove {prefix}*, or choose another `prefix`"
        )
