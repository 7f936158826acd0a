"""The files of a binarised text, compared with each other before they are used. Needs no fairseq.

fairseq believes what an index says: where it is damaged, fairseq asks for gigabytes, or reads another text
than the one that was written. The comparison takes one pass over files that fairseq reads once as well.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_AGAIN = "make it again with fairseq-preprocess"
# Entries of an index, and tokens, that are looked at together.
_ENTRIES = 1 << 20
_TOKENS = 1 << 24
_DTYPES = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 8: "u2", 9: "u4", 10: "u8"}
# By the first 8 bytes of an index: the values of --dataset-impl that read it.
_KINDS = {
    b"MMIDIDX\x00": ("mmap",),
    b"TNTIDX\x00\x00": ("lazy", "cached"),
    b"HUFFIDX\x00": ("huffman",),
}


@dataclass(frozen=True)
class _Index:
    """What an index says of its text.

    Attributes:
        tokens: their number.
        data_bytes: size of the ``.bin``.
        dtype: of the tokens in the ``.bin``; None where they are compressed.
        first: the number that stands for the first type of the dictionary.
    """

    tokens: int
    data_bytes: int
    dtype: str | None
    first: int = 0


def check_text(path: str, types: int, impl: str | None = None) -> int | None:
    """Compares the files of a binarised text with each other and with the dictionary.

    Args:
        path: of the text, without ``.idx`` and ``.bin``.
        types: number of types of the dictionary.
        impl: ``--dataset-impl``; None where fairseq finds out.

    Returns:
        The number of tokens, which may be 0; None for what is no local file of these formats.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: with the file and the fix, if a file is damaged, of another text or of another dictionary.
    """
    if "://" in path:
        return None
    if impl == "raw" or (impl is None and os.path.isfile(path)):
        return _check_raw(path)
    if impl == "fasta" or (os.path.isfile(f"{path}.fasta") and not os.path.isfile(f"{path}.idx")):
        # fairseq counts such lines without their ends, so blocks of tokens would be wrong.
        raise ValueError(
            f"--dataset-impl fasta is not for this task: write the sequences of {path}.fasta as lines "
            "and binarise them with fairseq-preprocess"
        )
    for name in (f"{path}.idx", f"{path}.bin"):
        if not os.path.isfile(name):
            raise FileNotFoundError(f"{name} is not there: {_AGAIN}")
    index = _read_index(f"{path}.idx", impl)
    found = os.path.getsize(f"{path}.bin")
    if found != index.data_bytes:
        raise ValueError(
            f"{path}.bin has {found:,} bytes, but by {os.path.basename(path)}.idx it must have "
            f"{index.data_bytes:,}: one of them is damaged or of another text, {_AGAIN}"
        )
    if index.tokens and index.dtype is not None:
        _check_tokens(f"{path}.bin", index, types)
    return index.tokens


def _check_raw(path: str) -> int | None:
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path} is not there: --dataset-impl raw reads a text file of this name (fairseq-preprocess "
            f"calls it {os.path.basename(path)}.None-None: rename it)"
        )
    tokens = 0
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                tokens += len(line.split()) + 1
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): write it in UTF-8") from None
    return tokens


def _read_index(path: str, impl: str | None) -> _Index:
    with open(path, "rb") as file:
        header = file.read(48)
    kinds = _KINDS.get(header[:8])
    if kinds is None:
        raise ValueError(f"{path} is no index of a binarised text, or damaged: {_AGAIN}")
    if impl is not None and impl not in kinds:
        raise ValueError(
            f"--dataset-impl {impl} cannot read {path}, which is {kinds[-1]}: leave the flag out"
        )
    read = {"mmap": _read_mmap, "lazy": _read_legacy, "huffman": _read_huffman}[kinds[0]]
    try:
        return read(path, header)
    except (struct.error, KeyError):
        raise _damaged(path, "its header is cut off or not that of a text") from None


def _damaged(path: str, why: str) -> ValueError:
    return ValueError(f"{path} is damaged ({why}): {_AGAIN}")


def _check_size(path: str, expected: int, entries: int) -> None:
    found = os.path.getsize(path)
    if found != expected:
        raise _damaged(path, f"{found:,} bytes, where {entries:,} lines take {expected:,}")


def _array(path: str, dtype: str, offset: int, count: int) -> NDArray[Any]:
    if not count:
        return np.empty(0, dtype)
    return np.memmap(path, dtype, "r", offset, (count,))


def _chunks(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[np.int64], ...]]:
    for begin in range(0, len(arrays[0]), _ENTRIES):
        yield tuple(array[begin : begin + _ENTRIES].astype(np.int64) for array in arrays)


def _sum_of_sizes(path: str, sizes: NDArray[Any], begins: NDArray[Any], unit: int) -> int:
    """The sum of ``sizes``, if the lines lie one behind the other at ``begins``, which are in ``unit``
    bytes."""
    total = 0
    for of_lines, begin in _chunks(sizes, begins):
        if (of_lines < 0).any():
            raise _damaged(path, "a line of a negative length")
        ends = total + np.cumsum(of_lines)
        if not np.array_equal((ends - of_lines) * unit, begin):
            raise _damaged(path, "its lengths and positions of lines do not fit each other")
        total = int(ends[-1])
    return total


def _read_mmap(path: str, header: bytes) -> _Index:
    version, code, lines = struct.unpack_from("<QBQ", header, 9)
    if version != 1:
        raise _damaged(path, f"version {version:,}")
    dtype = _DTYPES[code]
    _check_size(path, 26 + 12 * lines, lines)
    sizes = _array(path, "<i4", 26, lines)
    itemsize = np.dtype(dtype).itemsize
    tokens = _sum_of_sizes(path, sizes, _array(path, "<i8", 26 + 4 * lines, lines), itemsize)
    return _Index(tokens, tokens * itemsize, dtype)


def _read_legacy(path: str, header: bytes) -> _Index:
    """Of ``--dataset-impl lazy`` and ``cached``, and of fairseq before 0.9."""
    version, code, itemsize, lines, dimensions = struct.unpack_from("<QQQQQ", header, 8)
    dtype = _DTYPES[code]
    if version != 1 or np.dtype(dtype).itemsize != itemsize or dimensions != lines:
        raise _damaged(path, "its header is not that of a text")
    _check_size(path, 48 + 8 * (2 * (lines + 1) + lines), lines)
    positions = [_array(path, "<i8", 48 + 8 * (lines + 1) * part, lines + 1) for part in range(2)]
    for begin in range(0, lines + 1, _ENTRIES):
        part = positions[0][begin : begin + _ENTRIES]
        if not np.array_equal(part, np.arange(begin, begin + len(part))):
            raise _damaged(path, "its lines are not rows of tokens")
    sizes = _array(path, "<i8", 48 + 16 * (lines + 1), lines)
    tokens = _sum_of_sizes(path, sizes, positions[1][:-1], 1)
    if positions[1][-1] != tokens:
        raise _damaged(path, "its lengths and positions of lines do not fit each other")
    # The format comes from Lua: numbers of tokens begin at 1.
    return _Index(tokens, tokens * itemsize, dtype, first=1)


def _read_huffman(path: str, header: bytes) -> _Index:
    version, data_bytes, lines = struct.unpack_from("<QQQ", header, 9)
    if version != 1:
        raise _damaged(path, f"version {version:,}")
    _check_size(path, 33 + 12 * lines, lines)
    vocab = f"{path.removesuffix('.idx')}.vocab"
    if not os.path.isfile(vocab):
        raise FileNotFoundError(f"{vocab} is not there: {_AGAIN}")
    tokens = end = 0
    sizes, ends = _array(path, "<i4", 33, lines), _array(path, "<i8", 33 + 4 * lines, lines)
    for of_lines, of_ends in _chunks(sizes, ends):
        # No line is empty, and none has more tokens than bits.
        if (of_lines <= 0).any() or (of_lines > 8 * np.diff(of_ends, prepend=end)).any():
            raise _damaged(path, "its lengths and positions of lines do not fit each other")
        tokens, end = tokens + int(of_lines.sum()), int(of_ends[-1])
    if end != data_bytes:
        raise _damaged(path, "its lengths and positions of lines do not fit each other")
    return _Index(tokens, data_bytes, None)


def _check_tokens(path: str, index: _Index, types: int) -> None:
    tokens = np.memmap(path, np.dtype(index.dtype), "r")
    smallest, largest = index.first, index.first
    for begin in range(0, len(tokens), _TOKENS):
        part = tokens[begin : begin + _TOKENS]
        largest = max(largest, int(part.max()))
        if index.first or part.dtype.kind == "i":
            smallest = min(smallest, int(part.min()))
    outside = smallest if smallest < index.first else largest
    if not index.first <= outside < index.first + types:
        raise ValueError(
            f"{path} holds the token {outside - index.first:,}, but the dictionary has {types:,} types: it "
            f"is damaged or of another dictionary, {_AGAIN} (--srcdict, --tgtdict)"
        )
