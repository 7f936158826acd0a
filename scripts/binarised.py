"""Whether the files of fairseq-preprocess are whole, without fairseq."""

import struct
from collections.abc import Sequence
from pathlib import Path

_MAGIC = b"MMIDIDX\x00\x00"
# Version, code of the type of tokens, number of lines.
_HEADER = struct.Struct("<QBQ")
_BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8}


# Source and target language.
Pair = tuple[str, str]


def is_binarised(folder: Path, splits: Sequence[str], pair: Pair | None = None) -> bool:
    """True if the dictionary and the texts of all splits are there, of the sizes that their indexes say; of a
    translation pair, those of both languages."""
    ends = [f".{language}" for language in pair] if pair else [""]
    dictionaries = [folder / f"dict{end}.txt" for end in ends]
    if not all(path.is_file() and path.stat().st_size for path in dictionaries):
        return False
    between = f".{pair[0]}-{pair[1]}" if pair else ""
    return all(_is_whole(folder / f"{split}{between}{end}") for split in splits for end in ends)


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
