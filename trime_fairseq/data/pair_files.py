"""The files of sentence pairs that fairseq-preprocess writes, named and hashed without fairseq.

``train.es-en.es`` and ``train.es-en.en``, each with ``.idx`` and ``.bin``, are the two sides of a subset,
whichever is the source.
"""

import os
import re
from dataclasses import dataclass

from ..files import file_hash
from .provenance import text_files_hash


@dataclass(frozen=True)
class PairFiles:
    """The two sides of a subset, which may not be there.

    Attributes:
        folder: of DATA.
        subset: ``train``, ``valid``, ..., or a further part of it: ``train1``.
        source, target: the languages.
    """

    folder: str
    subset: str
    source: str
    target: str

    def side(self, language: str) -> str:
        """The path of one side, without ``.idx`` and ``.bin``."""
        return os.path.join(self.folder, self.name(language))

    def name(self, language: str) -> str:
        """The name of one side, such as ``train.es-en.en``."""
        pairs = [f"{self.source}-{self.target}", f"{self.target}-{self.source}"]
        sources = [os.path.join(self.folder, f"{self.subset}.{pair}.{self.source}") for pair in pairs]
        pair = pairs[0] if is_there(sources[0]) or not is_there(sources[1]) else pairs[1]
        return f"{self.subset}.{pair}.{language}"

    def pair_hash(self) -> str | None:
        """SHA-256 of source and target sentences; None if they are not there."""
        sides = [self.side(language) for language in (self.source, self.target)]
        return file_hash(*(f"{side}{end}" for side in sides for end in (".idx", ".bin")))

    def target_hash(self) -> str | None:
        """SHA-256 of the target sentences, their index and their tokens; None if they are not there."""
        return text_files_hash(self.folder, self.name(self.target))


def is_there(path: str) -> bool:
    """Whether a text of this path is there, or a part of its files."""
    return any(os.path.exists(f"{path}{end}") for end in ("", ".idx", ".bin"))


def find_pairs(folder: str, subset: str) -> PairFiles | None:
    """The pairs of a subset, named as in its files: ``train.es-en.en`` is of Spanish and English, into
    English. None where there are none."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    for name in names:
        found = re.fullmatch(rf"{re.escape(subset)}\.([^.-]+)-([^.-]+)\.[^.]+(\.idx)?", name)
        if found:
            return PairFiles(folder, subset, found[1], found[2])
    return None
