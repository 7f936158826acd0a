"""Files that appear under their name when they are complete."""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from .hashes import text_hash
from .places import written_place

# Names of files may have 255 bytes on most disks; temporary ones are 21 longer.
_LONGEST_STEM = 230
# A disk without room for so many bytes is full.
_LITTLE = 2**16


def check_writable(name: str, path: str) -> None:
    """Makes the folder of ``path`` and writes a small file there, which it removes.

    Args:
        name: the flag or argument that holds the path; begins the error.

    Raises:
        ValueError: if ``path`` cannot be written, or is something else than a regular file.
    """
    try:
        place = written_place(path)
        os.makedirs(os.path.dirname(place) or ".", exist_ok=True)
        remove_leftovers(place)
        file, temporary = new_temporary(place)
        try:
            os.write(file, bytes(_LITTLE))
        finally:
            os.close(file)
            os.unlink(temporary)
    except OSError as error:
        raise ValueError(f"{name} {path}: cannot be written there ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error


@contextmanager
def whole_file(path: str, mode: str = "w", *, follow_links: bool = True) -> Iterator[IO[Any]]:
    """A new file that appears under its name, on disk, when the block ends without an error.

    What killed runs have left of earlier attempts is removed.

    Args:
        mode: ``w`` or ``wb``.
        follow_links: see :func:`~.places.written_place`.

    Raises:
        ValueError: if something that is no regular file is there.
        OSError: naming ``path``, if the disk is full.
    """
    place = written_place(path, follow_links)
    os.makedirs(os.path.dirname(place) or ".", exist_ok=True)
    remove_leftovers(place)
    number, temporary = new_temporary(place)
    try:
        encoding = None if "b" in mode else "utf-8"
        # The opener returns the descriptor that holds the lock; the name is for ``file.name``.
        with open(temporary, mode, encoding=encoding, opener=lambda *_: number) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except (Exception, KeyboardInterrupt) as error:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, path) from error
        raise


def new_temporary(path: str) -> tuple[int, str]:
    """A new file beside ``path``: a descriptor to read and write it, and its name, which nobody can guess.

    As long as the descriptor is open, :func:`remove_leftovers` of other processes leaves the file alone.
    """
    while True:
        name = f"{_stem(path)}.{secrets.token_hex(8)}.tmp"
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        # Some network disks have no locks: then nobody removes anything.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_open_as(file, name):
            return file, name
        os.close(file)  # taken for a leftover before it was locked


def remove_leftovers(path: str) -> None:
    """Removes the temporary files of ``path`` that no living process writes."""
    folder, stem = os.path.split(_stem(path))
    if not os.path.isdir(folder or "."):
        return
    left = re.compile(re.escape(stem) + r"\.[0-9a-f]{16}\.tmp")
    for name in os.listdir(folder or "."):
        if name.startswith(stem) and left.fullmatch(name):
            # Another process may be faster, or the file may be another user's.
            with suppress(OSError):
                _remove_if_free(os.path.join(folder, name))


def _remove_if_free(name: str) -> None:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_open_as(file, name):
            os.unlink(name)
    finally:
        os.close(file)


def _is_open_as(file: int, name: str) -> bool:
    """Whether an open file is the one that has this name."""
    try:
        there = os.lstat(name)
    except FileNotFoundError:
        return False
    ours = os.fstat(file)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _stem(path: str) -> str:
    """What temporary files of ``path`` begin with."""
    folder, name = os.path.split(path)
    if len(os.fsencode(name)) > _LONGEST_STEM:
        name = text_hash(os.fsencode(name).hex())[:32]
    return os.path.join(folder, name)
