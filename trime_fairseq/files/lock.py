"""Locks between processes."""

import fcntl
import os
from contextlib import suppress
from typing import ClassVar

from .places import open_regular


class Lock:
    """A lock between processes, held from :meth:`acquire` to :meth:`release` or the end of the process.

    The file is removed on release; what a killed process leaves behind locks nobody out, nor do children
    that outlive it.
    """

    _held: ClassVar[set["Lock"]] = set()

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self, wait: bool = False) -> bool:
        """Whether the lock was free; with ``wait``, waits until it is."""
        while True:
            file = open_regular(self.path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(file)
                return False
            # Who held it may have removed the file between our open and our lock.
            with suppress(FileNotFoundError):
                if os.stat(self.path).st_ino == os.fstat(file).st_ino:
                    self._file = file
                    self._held.add(self)
                    return True
            os.close(file)

    def release(self) -> None:
        if self._file is not None:
            os.unlink(self.path)
            os.close(self._file)
            self._file = None
            self._held.discard(self)

    @classmethod
    def _forget(cls) -> None:
        """In a forked process, a data loader's worker: what it inherits would hold the locks of a killed
        parent until it notices, seconds later."""
        for lock in cls._held:
            if lock._file is not None:
                os.close(lock._file)
                lock._file = None


os.register_at_fork(after_in_child=Lock._forget)
