"""Writes a datastore row by row: continues after a kill, several processes fill one store."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from ..files import Lock, remove_leftovers
from .datastore import DatastoreError, Manifest, finite
from .layout import all_files, keys_path, manifest_path, note_path, values_path
from .note import Note
from .partial import PartialArray
from .progress import checksum_with_progress

logger = logging.getLogger(__name__)


class DatastoreWriter:
    """Writes the rows [begin, end) of a datastore; whoever completes the last range completes the store.

    Rows are synced to the disk and their number is noted beside them from time to time, in this
    order: after a kill the process goes on from there, and the files end the same.

    Args:
        prefix: P of :mod:`.layout`.
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
        self._lock = lock_store(prefix, shard_id, manifest.num_shards)
        # Keys and values.
        self._arrays: tuple[PartialArray, ...] = ()
        try:
            # Nobody may complete the store while this process looks at it.
            with self._locked_manifest():
                self._open()
        except BaseException:
            self.close()
            raise
        self._note_every = note_every
        self._last_note = time.monotonic()
        self._done = self.resume_row

    def _open(self) -> None:
        refuse_other_store(self.prefix, self.manifest)
        self.is_complete = store_is_complete(self.prefix, self.manifest)
        self.resume_row = self.end if self.is_complete else self._noted(self._shard_id)
        if self.is_complete:
            return
        rows, dimension = self.manifest.rows, self.manifest.dimension
        self.manifest.write(self.prefix)
        self._arrays = (
            PartialArray(keys_path(self.prefix, self.key_dtype), self.key_dtype, rows, dimension),
            PartialArray(values_path(self.prefix), self.manifest.value_dtype, rows, 1),
        )
        lost = any(array.is_new() for array in self._arrays)
        # Arrays get their names when all ranges are written. Rows of one cannot be added to another's.
        torn = any(array.is_complete() for array in self._arrays) and self._missing_ranges()
        if lost or torn:
            self._forget_notes()
            self.resume_row = self.begin
            for array in self._arrays:
                array.write_again()

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
        with self._locked_manifest():
            self._complete_store()

    def close(self) -> None:
        """Releases files and locks; may be called at any time."""
        for array in self._arrays:
            array.close()
        self._lock.release()

    @contextmanager
    def _locked_manifest(self) -> Iterator[None]:
        lock = Lock(f"{manifest_path(self.prefix)}.lock")
        lock.acquire(wait=True)
        try:
            yield
        finally:
            lock.release()

    def _complete_store(self) -> None:
        if store_is_complete(self.prefix, self.manifest):
            return
        if missing := self._missing_ranges():
            names = ", ".join(map(str, missing))
            logger.info(f"TRIME: {self.prefix} will be complete when shard {names} is done, too")
            return
        for array in self._arrays:
            array.complete()
        self.manifest.completed(self.prefix, checksum_with_progress).write(self.prefix)
        self._forget_notes()
        logger.info(f"TRIME: the datastore {self.prefix} is complete: {self.manifest.rows:,} rows")

    def _note(self, shard_id: int) -> str:
        return note_path(self.prefix, shard_id, self.manifest.num_shards)

    def _take_note(self) -> None:
        for array in self._arrays:
            array.sync()
        Note(self.begin, self.end, self._done).save(self._note(self._shard_id))
        self._last_note = time.monotonic()

    def _noted(self, shard_id: int) -> int:
        """The first row that is missing."""
        note = Note.read(self._note(shard_id))
        if note is None:
            return self.begin
        if (note.begin, note.end) != (self.begin, self.end):
            raise DatastoreError(
                f"{self._note(shard_id)} is of rows {note.begin:,} to {note.end:,}, this run would "
                f"write {self.begin:,} to {self.end:,}: continue with the same `begin` and `end`, "
                f"or remove {all_files(self.prefix)} to start anew"
            )
        return note.done

    def _forget_notes(self) -> None:
        """Removes the notes of all processes."""
        for shard in range(self.manifest.num_shards):
            with suppress(FileNotFoundError):
                os.unlink(self._note(shard))
            remove_leftovers(self._note(shard))

    def _missing_ranges(self) -> list[int]:
        """The processes that have not written all of their rows."""
        notes = [Note.read(self._note(shard)) for shard in range(self.manifest.num_shards)]
        return [shard for shard, note in enumerate(notes) if note is None or note.done < note.end]

    def _overflow_hint(self) -> str:
        if self.key_dtype == "float16":
            return "they may be too large for float16 (`key_dtype`): store float32"
        return "the model computes no numbers there"


def lock_store(prefix: str, shard_id: int, num_shards: int) -> Lock:
    """The lock of a range of a store, held; makes the folder of the store.

    Raises:
        DatastoreError: if another process has it.
    """
    path = f"{note_path(prefix, shard_id, num_shards)}.lock"
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    lock = Lock(path)
    if not lock.acquire():
        raise DatastoreError(
            f"another process writes the datastore {prefix} (shard {shard_id} of {num_shards}): wait "
            "for it, or end it"
        )
    return lock


def store_is_complete(prefix: str, manifest: Manifest) -> bool:
    """Whether the store that ``manifest`` describes is there, in files of the right sizes."""
    there = Manifest.read(prefix)
    if there is None or not there.complete or there.conflicts(manifest, "num_shards"):
        return False
    damage = there.damage(prefix)
    if damage:
        logger.warning(f"TRIME: the datastore {prefix} is damaged and will be written again: {damage}")
    return not damage


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
            f"same settings, remove {all_files(prefix)}, or choose another `prefix`"
        )
