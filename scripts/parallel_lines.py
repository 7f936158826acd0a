"""Lines of text files: read strictly, and changed one by one by several processes, in order."""

import gzip
import lzma
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent))

from preprocess import DataError  # noqa: E402

_CHUNK = 1000
_OPENERS = {".gz": gzip.open, ".xz": lzma.open}

Old, New = TypeVar("Old"), TypeVar("New")
# One side of a text: a name for errors, and what reads its lines.
Side = tuple[str, Callable[[], Iterable[str]]]


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text in UTF-8, which may be compressed (.gz, .xz), without their ends.

    Raises:
        DataError: naming the line that is not UTF-8, or the file, if it is damaged.
    """
    number = 0
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            for line in file:
                number += 1
                yield line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number:,}, is not UTF-8: {error}") from error
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: {error}") from error


def file_side(path: Path) -> Side:
    return str(path), partial(read_lines, path)


def change_all(make: Callable[[], Callable[[Old], New]], items: Iterable[Old], workers: int) -> Iterator[New]:
    """Changed lines, or pairs of them, in order. A few thousand are in memory at a time.

    Args:
        make: makes the change; is called once in each process.

    Raises:
        DataError: if a process was killed.
    """
    if workers == 1:
        yield from map(make(), items)
        return
    iterator = iter(items)
    chunks = iter(lambda: list(islice(iterator, _CHUNK)), [])
    with ProcessPoolExecutor(workers, initializer=_begin, initargs=(make,)) as pool:
        pending: deque[Future[list[New]]] = deque()
        try:
            for chunk in chunks:
                pending.append(pool.submit(_change_chunk, chunk))
                if len(pending) > 2 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        except BrokenProcessPool as error:
            raise DataError("a process was killed: is the memory too small for so many --workers?") from error
        finally:
            for left in pending:
                left.cancel()


# What a worker process was begun with.
_change: Callable[[Any], Any] | None = None


def _begin(make: Callable[[], Callable[[Any], Any]]) -> None:
    global _change
    _change = make()


def _change_chunk(chunk: list[Any]) -> list[Any]:
    assert _change is not None
    return [_change(item) for item in chunk]
