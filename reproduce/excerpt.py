"""Shortens validation and test text to the beginning of each document, where the whole takes too long.

    python reproduce/excerpt.py my/words. short/words. --words 4000

reads my/words.valid.txt and my/words.test.txt (or .txt.xz), in which an empty line ends a document. It writes
short/words.valid.txt and short/words.test.txt, and copies the training text as it is.
"""

import argparse
import lzma
from collections.abc import Iterator
from pathlib import Path


def read(prefix: str, subset: str) -> str:
    plain = Path(f"{prefix}{subset}.txt")
    if plain.exists():
        return plain.read_text(encoding="utf-8")
    with lzma.open(f"{plain}.xz", "rt", encoding="utf-8") as file:
        return file.read()


def beginnings(text: str, words: int) -> Iterator[str]:
    """The first lines of each document, up to the one that reaches so many words."""
    for document in text.strip("\n").split("\n\n"):
        kept, count = [], 0
        for line in document.splitlines():
            if count >= words:
                break
            kept.append(line)
            count += len(line.split())
        yield "\n".join(kept) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", help="prefix of the texts")
    parser.add_argument("short", help="prefix of what is written")
    parser.add_argument("--words", type=int, default=4000, help="of each document (default: %(default)s)")
    given = parser.parse_args()
    Path(f"{given.short}train.txt").parent.mkdir(parents=True, exist_ok=True)
    Path(f"{given.short}train.txt").write_text(read(given.text, "train"), encoding="utf-8")
    for subset in ("valid", "test"):
        short = "\n".join(beginnings(read(given.text, subset), given.words))
        Path(f"{given.short}{subset}.txt").write_text(short, encoding="utf-8")


if __name__ == "__main__":
    main()
