"""The exported segments: a JSON list of ``{"id": "0", "contents": "..."}``, and what it was exported from."""

import json
import os
from dataclasses import dataclass, fields
from typing import Any, List, Optional

from ..files import Description, Differences, NotNegative, Positive, file_hash

# Not .json: Pyserini would index the file, too.
INFO = ".info"


@dataclass(frozen=True)
class SegmentsInfo(Description):
    """What an export is of; None where it does not tell.

    Attributes:
        segments: their number.
        text_hash: SHA-256 of the exported file.
        data_hash: SHA-256 of the binarised text, as in the manifest of a datastore.
        tokens_per_sample, sample_break_mode: how the text was cut.
    """

    segments: NotNegative
    text_hash: str
    data_hash: Optional[str] = None
    tokens_per_sample: Positive | None = None
    sample_break_mode: Optional[str] = None

    def write(self, path: str) -> None:
        """Beside the file ``path`` that it is of."""
        self.save(path + INFO)

    def conflicts(self, other: "SegmentsInfo") -> Differences:
        """Fields that make other segments; what one of them does not tell does not count."""
        names = [of.name for of in fields(SegmentsInfo)]
        return self.differences(other, names, unknown_differs=False)


@dataclass(frozen=True)
class Segments:
    """All segments of an export, in the order of their ids."""

    path: str
    texts: List[str]
    info: SegmentsInfo


def read_segments(path: str) -> Segments:
    """Reads an export whole: a gigabyte of text takes some two of memory.

    Raises:
        ValueError: if the file is not there, is no such list, or has other ids than 0 to N - 1 in order; or
            if it is not the one that its ``.info`` describes.
    """
    flag = f"--segments_path {path}"
    if not os.path.isfile(path):
        raise ValueError(f"{flag}: no such file; write it with fairseq-train --output-segments-to-file")
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except ValueError as error:
        raise ValueError(f"{flag} cannot be read as JSON, export the segments again: {error}") from error
    texts = _texts(content, flag)
    info = SegmentsInfo(len(texts), file_hash(path) or "")
    if not os.path.exists(path + INFO):
        return Segments(path, texts, info)
    described = SegmentsInfo.load(path + INFO, "does not describe segments: export them again")
    if described.conflicts(info):
        raise ValueError(f"{flag} is not the file that {path}{INFO} describes: export the segments again")
    return Segments(path, texts, described)


def _texts(content: Any, flag: str) -> List[str]:
    if not isinstance(content, list) or not content:
        raise ValueError(f'{flag}: a JSON list of {{"id": "0", "contents": "..."}} expected')
    texts = []
    for number, segment in enumerate(content):
        if not isinstance(segment, dict) or not isinstance(segment.get("contents"), str):
            raise ValueError(f'{flag}: entry {number} has no "contents" that are text')
        if str(segment.get("id")) != str(number):
            raise ValueError(
                f"{flag}: entry {number} has the id {segment.get('id')!r}; ids must be 0 to "
                f"{len(content) - 1:,} in order, as fairseq-train --output-segments-to-file writes them"
            )
        texts.append(segment["contents"])
    return texts
