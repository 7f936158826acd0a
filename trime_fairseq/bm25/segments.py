"""The exported segments: a JSON list of ``{"id": "0", "contents": "..."}``, and what it was exported from."""

import os
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, TypeVar

from ..files import Description, Positive, file_hash, read_json
from .limits import MOST_SEGMENTS

# Bytes of an export: any text that there is.
_LARGEST = 2**44

Self = TypeVar("Self", bound="SegmentsInfo")


@dataclass(frozen=True)
class SegmentsInfo(Description):
    """Provenance of exported segments, and of what is made from them; None where it was not recorded.

    Attributes:
        segments: their number.
        text_hash: SHA-256 of the exported file.
        data_hash: SHA-256 of the binarised text, as in the manifest of a datastore.
        tokens_per_sample, sample_break_mode: how the text was cut.
    """

    # Of the description's file. Not .json: Pyserini would index the file, too.
    suffix: ClassVar[str] = ".info"
    otherwise: ClassVar[str] = "does not describe segments: export them again"

    segments: Annotated[int, 0, MOST_SEGMENTS]
    text_hash: str
    data_hash: str | None = None
    tokens_per_sample: Positive | None = None
    sample_break_mode: str | None = None

    @classmethod
    def made_from(cls: type[Self], segments: "SegmentsInfo", **more: Any) -> Self:
        """A description that adds ``more`` to the provenance of segments."""
        return cls(**{entry.name: getattr(segments, entry.name) for entry in fields(SegmentsInfo)}, **more)

    @classmethod
    def read(cls: type[Self], path: str) -> Self | None:
        """The description beside the file ``path``; None if there is none.

        Raises:
            ValueError: if the file beside it is something else.
        """
        beside = path + cls.suffix
        return cls.load(beside, cls.otherwise) if os.path.exists(beside) else None

    def write(self, path: str) -> None:
        """Writes the description beside the file ``path``."""
        self.save(path + self.suffix)


@dataclass(frozen=True)
class Segments:
    """All segments of an export, in the order of their ids."""

    path: str
    texts: list[str]
    info: SegmentsInfo


def read_segments(segments_path: str) -> Segments:
    """Reads an export whole: a gigabyte of text takes some two of memory.

    Raises:
        ValueError: if the file is not there, is no such list, or has other ids than 0 to N - 1 in order; or
            if it is not the one that its ``.info`` describes.
    """
    where = f"`segments_path` {segments_path}"
    if not os.path.isfile(segments_path):
        raise ValueError(f"{where}: no such file; write it with trime-bm25 export")
    try:
        content = read_json(segments_path, _LARGEST)
    except ValueError as error:
        raise ValueError(f"{where} cannot be read as JSON, export the segments again: {error}") from error
    texts = _texts(content, where)
    found = SegmentsInfo(len(texts), file_hash(segments_path) or "")
    described = SegmentsInfo.read(segments_path)
    different = described.differences(found, unknown_differs=False) if described else None
    if different:
        raise ValueError(
            f"{where} is not the file that its {SegmentsInfo.suffix} describes ({SegmentsInfo.suffix} / "
            f"file: {different}): export the segments again"
        )
    return Segments(segments_path, texts, described or found)


def _texts(content: Any, where: str) -> list[str]:
    if not isinstance(content, list) or not content:
        raise ValueError(f'{where}: a JSON list of {{"id": "0", "contents": "..."}} expected')
    texts = []
    for number, segment in enumerate(content):
        if not isinstance(segment, dict) or not isinstance(segment.get("contents"), str):
            raise ValueError(f'{where}: entry {number} has no "contents" that are text')
        if str(segment.get("id")) != str(number):
            raise ValueError(
                f"{where}: entry {number} has the id {segment.get('id')!r}; ids must be 0 to "
                f"{len(content) - 1:,} in order, as trime-bm25 export writes them"
            )
        if not segment["contents"].isascii() and _has_surrogates(segment["contents"]):
            raise ValueError(f'{where}: the "contents" of entry {number} hold half a character')
        texts.append(segment["contents"])
    return texts


def _has_surrogates(text: str) -> bool:
    """Whether it holds half of a surrogate pair: JSON can write it, a text file cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
