"""The neighbours of all segments: a folder of pieces, each written whole, by any number of processes.

RESULTS/search.info               what was searched: see SearchInfo
RESULTS/neighbors-00001000.npz    of segments 1,000 and following: ids int32 and scores float32 [piece, k]
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..files import Positive, whole_file
from .segments import SegmentsInfo


@dataclass(frozen=True, kw_only=True)
class SearchInfo(SegmentsInfo):
    """What was searched, and how.

    Attributes:
        engine, k: name of the engine, neighbours of a segment.
        piece: segments of a file.
        num_shards: into how many commands the latest search was divided; pieces do not depend on it.
    """

    suffix: ClassVar[str] = "/search.info"
    otherwise: ClassVar[str] = "does not describe the results of a search: is the folder right?"

    engine: str
    k: Positive
    piece: Positive
    num_shards: Positive


class SearchResults:
    """A folder of results.

    Attributes:
        folder, info: where they are, and of what.
    """

    def __init__(self, folder: str, info: SearchInfo) -> None:
        self.folder, self.info = folder, info

    @classmethod
    def open(cls, results_path: str) -> "SearchResults":
        """Raises ValueError if there are none."""
        info = SearchInfo.read(results_path)
        if info is None:
            raise ValueError(f"`results_path` {results_path} holds no results: run trime-bm25 search")
        return cls(results_path, info)

    @classmethod
    def create(cls, results_path: str, info: SearchInfo) -> "SearchResults":
        """Results to be filled, or continued.

        Raises:
            ValueError: if the folder holds results of another search.
        """
        there = SearchInfo.read(results_path)
        if there is not None:
            different = replace(there, num_shards=info.num_shards).differences(info)
            if different:
                raise ValueError(
                    f"`results_path` {results_path} holds results of another search (there / here: "
                    f"{different}): remove it, or choose another folder"
                )
        info.write(results_path)
        return cls(results_path, info)

    def pieces(self, shard_id: int = 0, num_shards: int = 1) -> Iterator[tuple[int, int]]:
        """First and last segment + 1 of the pieces of a shard, which are consecutive."""
        starts = range(0, self.info.segments, self.info.piece)
        begin, end = (len(starts) * number // num_shards for number in (shard_id, shard_id + 1))
        for start in starts[begin:end]:
            yield start, min(start + self.info.piece, self.info.segments)

    def has(self, begin: int) -> bool:
        """Whether the piece whose first segment is ``begin`` is there."""
        return os.path.exists(self._path(begin))

    def missing(self) -> list[int]:
        """First segments of the pieces that are not there."""
        return [begin for begin, _ in self.pieces() if not self.has(begin)]

    def write(self, begin: int, ids: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
        """Writes a piece, whose file is there as a whole or not at all."""
        with whole_file(self._path(begin), "wb") as file:
            np.savez(file, ids=ids, scores=scores)

    def read(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Ids int32 [segments, k] and scores float32 [segments, k] of all neighbours, best first; -1 and 0
        beyond the last.

        Raises:
            ValueError: if pieces are missing, naming the shards to run again, or damaged.
        """
        pieces, missing = list(self.pieces()), self.missing()
        if missing:
            raise ValueError(
                f"`results_path` {self.folder}: {len(missing)} of {len(pieces)} pieces are missing, "
                f"the first of segment {missing[0]:,}: {self._mend(missing)}"
            )
        shape = (self.info.segments, self.info.k)
        ids, scores = np.empty(shape, np.int32), np.empty(shape, np.float32)
        for begin, end in pieces:
            try:
                with np.load(self._path(begin)) as piece:
                    ids[begin:end], scores[begin:end] = piece["ids"], piece["scores"]
            except PermissionError:
                raise
            except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
                message = f"{self._path(begin)} is damaged ({error}): remove it and search again"
                raise ValueError(message) from error
        return ids, scores

    def _mend(self, missing: list[int]) -> str:
        count = self.info.num_shards
        if count == 1:
            return "run trime-bm25 search again, it continues"
        shards = [
            str(shard)
            for shard in range(count)
            if {begin for begin, _ in self.pieces(shard, count)} & set(missing)
        ]
        return f"run trime-bm25 search with `num_shards` {count} `shard_id` {', '.join(shards)}"

    def _path(self, begin: int) -> str:
        return os.path.join(self.folder, f"neighbors-{begin:08d}.npz")
