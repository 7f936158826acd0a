"""Whether the files of fairseq-preprocess are whole, without fairseq."""

import struct
from collections.abc import Sequence
from pathlib import Path

_MAGIC = b"MMIDIDX\x00\x00"
# Version, code of the type of tokens, number of lines.
_HEADER = struct.Struct("<QBQ")
_BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8}


def is_binarised(folder: Path, splits: Sequence[str]) -> bool:
    """True if a dictionary and the texts of all splits are there, of the sizes that their indexes say."""
    dictionary = folder / "dict.txt"
    if not dictionary.is_file() or not dictionary.stat().st_size:
        return False
    return all(_is_whole(folder / split) for split in splits)


def _is_whole(text: Path) -> bool:
    index, tokens = text.with_name(text.name + ".idx"), text.with_name(text.name + ".bin")
    if not (index.is_file() and tokens.is_file()):
        return False
    with open(index, "rb") as file:
        begin = file.read(len(_MAGIC) + _HEADER.size)
        if len(begin) < len(_MAGIC) + _HEADER.size or not begin.startswith(_MAGIC):
            return False
        version, code, lines = _HEADER.unpack(begin[len(_MAGIC) :])
        width = _BYTES_OF_TYPE.get(code)
        # The size of each line, int32, and where it begins, int64.
        if version != 1 or width is None or not lines or index.stat().st_size != len(begin) + 12 * lines:
            return False
        file.seek(len(begin) + 4 * (lines - 1))
        (last_size,) = struct.unpack("<i", file.read(4))
        file.seek(-8, 2)
        (last_begin,) = struct.unpack("<q", file.read(8))
    return last_size >= 0 and tokens.stat().st_size == last_begin + last_size * width
