"""enwik8 as text for fairseq-preprocess: one token per byte."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trime_fairseq.files import whole_file  # noqa: E402

_CHUNK = 1 << 20
# A byte is its decimal code; a newline ends a line, which fairseq reads as one token, too.
_CODES = [f"{byte} ".encode() for byte in range(256)]
_CODES[ord("\n")] = b"\n"


def split_bytes(source: Path, parts: Sequence[tuple[Path, int]]) -> None:
    """Writes consecutive parts of a file, each of the given number of bytes, as codes.

    Every byte becomes a token of fairseq's, a newline its end-of-sentence symbol. (Where a part does not end
    with a newline, fairseq adds one such symbol.) Files appear under their names when complete.

    Raises:
        ValueError: if ``source`` is shorter.
    """
    with open(source, "rb") as file:
        for path, size in parts:
            with whole_file(str(path), "wb") as target:
                left = size
                while left:
                    chunk = file.read(min(left, _CHUNK))
                    if not chunk:
                        raise ValueError(f"{source} ends {left:,} bytes before {path.name} does")
                    target.write(b"".join([_CODES[byte] for byte in chunk]))
                    left -= len(chunk)
