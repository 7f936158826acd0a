"""Files that are there as a whole or not at all, hashes of files, and locks between processes."""

import fcntl
import hashlib
import json
import os
import tempfile
from contextlib import contextmanager, suppress
from typing import IO, Any, ClassVar, Iterator, Optional, Set


def check_writable(flag: str, path: str) -> None:
    """Raises ValueError if the file of a flag could not be written to ``path``; makes its folder."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{flag} {path}: {error}") from error
    if os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise ValueError(f"{flag} {path}: cannot be written there")


def modification_time(path: Optional[str]) -> Optional[float]:
    """Seconds since 1970; None for what is not a local file."""
    return os.path.getmtime(path) if path and os.path.exists(path) else None


@contextmanager
def whole_file(path: str, mode: str = "w") -> Iterator[IO[Any]]:
    """A new file that appears under its name, on disk, when the block ends without an error."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    encoding = None if "b" in mode else "utf-8"
    name = os.path.basename(path)
    file = tempfile.NamedTemporaryFile(
        mode, dir=folder, prefix=name + ".", suffix=".tmp", delete=False, encoding=encoding
    )
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Temporary files are the owner's alone; results are for colleagues, too.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(file.name, 0o666 & ~umask)
        os.replace(file.name, path)
    except Exception:
        with suppress(FileNotFoundError):
            os.unlink(file.name)
        raise


def write_json(path: str, content: Any, indent: Optional[int] = 1) -> None:
    """Writes a JSON file that is there as a whole or not at all."""
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=indent) + "\n")


def read_json(path: str) -> Any:
    """Raises ValueError, naming the file, if it is not JSON."""
    with open(path, encoding="utf-8") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is no JSON file: {error}") from error


def file_hash(*paths: Optional[str]) -> Optional[str]:
    """SHA-256, in hexadecimal digits, of the contents of local files; None if one of them is not there."""
    digest = hashlib.sha256()
    for path in paths:
        if not path or not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def text_hash(text: str) -> str:
    """SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


class Lock:
    """A lock between processes, held from :meth:`acquire` to :meth:`release` or the end of the process.

    The file is removed on release; what a killed process leaves behind locks nobody out, nor do children
    that outlive it.
    """

    _held: ClassVar[Set["Lock"]] = set()

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: Optional[int] = None

    def acquire(self, wait: bool = False) -> bool:
        """Whether the lock was free; with ``wait``, waits until it is."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
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
