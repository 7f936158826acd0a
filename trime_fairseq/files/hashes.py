"""Hashes of files and texts, and checksums of files that are too large for one pass of one thread."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .machine import core_count
from .places import open_regular

# Bytes of a block of a checksum, and of a read. Items of 2, 4 or 8 bytes never straddle two of them.
BLOCK = 2**26
_READ = 2**22
# More threads than this would wait for the disk.
_THREADS = 8

Visitor = Callable[[int, bytes], None]


def file_hash(*paths: str | None) -> str | None:
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


def symbols_hash(symbols: Sequence[str]) -> str:
    """SHA-256 of a dictionary, its symbols in their order: as checkpoints and manifests note it."""
    return text_hash("\n".join(symbols))


def file_checksum(
    path: str, *, visit: Visitor | None = None, progress: Callable[[int], object] | None = None
) -> str:
    """The checksum of a large file, in hexadecimal digits: SHA-256 of the SHA-256 digests, of 32 bytes each,
    of its blocks of 64 MiB, one after the other. Blocks are hashed by several threads.

    Args:
        visit: is called with the offset and the bytes of each piece, in no order, by any thread.
        progress: is called with the number of bytes of each piece, by any thread.

    Raises:
        ValueError: if it is no regular file.
        OSError: if it cannot be read.
    """
    file = open_regular(path, os.O_RDONLY, follow_links=True)

    def digest(begin: int) -> bytes:
        block, offset = hashlib.sha256(), begin
        while offset < begin + BLOCK and (piece := os.pread(file, _READ, offset)):
            block.update(piece)
            if visit is not None:
                visit(offset, piece)
            if progress is not None:
                progress(len(piece))
            offset += len(piece)
        return block.digest()

    whole = hashlib.sha256()
    try:
        with ThreadPoolExecutor(min(_THREADS, core_count()), "checksum") as pool:
            for block in pool.map(digest, range(0, os.fstat(file).st_size, BLOCK)):
                whole.update(block)
    finally:
        os.close(file)
    return whole.hexdigest()
