"""The exported segments: a JSON list of ``{"id": "0", "contents": "..."}``, and what it was exported from."""

import json
import os
from dataclasses import asdict, dataclass, fields
from typing import Any, Dict, List, Optional

from ..descriptions import FORMAT_VERSION, read_description
from ..files import file_hash, write_json

# Not .json: Pyserini would index the file, too.
INFO = ".info"


@dataclass(frozen=True)
class SegmentsInfo:
    """What an export is of; None where it does not tell.

    Attributes:
        segments: their number.
        text_hash: SHA-256 of the exported file.
        data_hash: SHA-256 of the binarised text, as in the manifest of a datastore.
        tokens_per_sample, sample_break_mode: how the text was cut.
    """

    segments: int
    text_hash: str
    data_hash: Optional[str] = None
    tokens_per_sample: Optional[int] = None
    sample_break_mode: Optional[str] = None
    format_version: int = FORMAT_VERSION

    def write(self, path: str) -> None:
        """Beside the file ``path`` that it is of."""
        write_json(path + INFO, asdict(self))

    def differences(self, other: "SegmentsInfo") -> Dict[str, str]:
        """Fields that differ, as "this / other"; what one of them does not tell does not count."""
        mine, others = asdict(self), asdict(other)
        return {
            name: f"{mine[name]} / {others[name]}"
            for name in (field.name for field in fields(SegmentsInfo))
            if mine[name] != others[name] and None not in (mine[name], others[name])
        }


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
    described = read_description(SegmentsInfo, path + INFO, "does not describe segments: export them again")
    if described.differences(info):
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
