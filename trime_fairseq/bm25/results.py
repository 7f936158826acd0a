"""The neighbours of all segments: a folder of pieces, each written whole, by any number of processes.

RESULTS/search.info               what was searched: see SearchInfo
RESULTS/neighbors-00001000.npz    of segments 1,000 and following: ids int32 and scores float32 [piece, k]
"""

import os
from dataclasses import dataclass, fields
from typing import Iterator, List, Tuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..files import Differences, Positive, whole_file
from .segments import SegmentsInfo

INFO = "search.info"


@dataclass(frozen=True, kw_only=True)
class SearchInfo(SegmentsInfo):
    """What was searched, and how.

    Attributes:
        engine, k: name of the engine, neighbours of a segment.
        piece: segments of a file.
        num_shards: into how many commands the latest search was divided; pieces do not depend on it.
    """

    engine: str
    k: Positive
    piece: Positive
    num_shards: Positive

    def other_results(self, other: "SearchInfo") -> Differences:
        """Fields that make other results."""
        return self.differences(other, [of.name for of in fields(self) if of.name != "num_shards"])


class Results:
    """A folder of results.

    Attributes:
        folder, info: where they are, and of what.
    """

    def __init__(self, folder: str, info: SearchInfo) -> None:
        self.folder, self.info = folder, info

    @classmethod
    def open(cls, folder: str) -> "Results":
        """Raises ValueError if there are none."""
        path = os.path.join(folder, INFO)
        if not os.path.exists(path):
            raise ValueError(f"--results_path {folder} holds no results: run trime-bm25 search")
        otherwise = "does not describe the results of a search: is the folder right?"
        return cls(folder, SearchInfo.load(path, otherwise))

    @classmethod
    def create(cls, folder: str, info: SearchInfo) -> "Results":
        """To be filled, or continued.

        Raises:
            ValueError: if the folder holds results of another search.
        """
        path = os.path.join(folder, INFO)
        if os.path.exists(path):
            different = cls.open(folder).info.other_results(info)
            if different:
                raise ValueError(
                    f"--results_path {folder} holds results of another search (there / here: {different}): "
                    "remove it, or choose another folder"
                )
        info.save(path)
        return cls(folder, info)

    def pieces(self, shard: int = 0, num_shards: int = 1) -> Iterator[Tuple[int, int]]:
        """First and last segment + 1 of the pieces of a shard, which are consecutive."""
        starts = range(0, self.info.segments, self.info.piece)
        begin, end = (len(starts) * number // num_shards for number in (shard, shard + 1))
        for start in starts[begin:end]:
            yield start, min(start + self.info.piece, self.info.segments)

    def has(self, begin: int) -> bool:
        return os.path.exists(self._path(begin))

    def missing(self) -> List[int]:
        """First segments of the pieces that are not there."""
        return [begin for begin, _ in self.pieces() if not self.has(begin)]

    def write(self, begin: int, ids: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
        """A piece; its file is there as a whole or not at all."""
        with whole_file(self._path(begin), "wb") as file:
            np.savez(file, ids=ids, scores=scores)

    def read(self) -> Tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Ids int32 [segments, k] and scores float32 [segments, k] of all neighbours, best first; -1 and 0
        beyond the last.

        Raises:
            ValueError: if pieces are missing, naming the shards to run again, or damaged.
        """
        pieces, missing = list(self.pieces()), self.missing()
        if missing:
            raise ValueError(
                f"--results_path {self.folder}: {len(missing)} of {len(pieces)} pieces are missing, "
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

    def _mend(self, missing: List[int]) -> str:
        shards = [
            str(shard)
            for shard in range(self.info.num_shards)
            if {begin for begin, _ in self.pieces(shard, self.info.num_shards)} & set(missing)
        ]
        if self.info.num_shards == 1:
            return "run trime-bm25 search again, it continues"
        return f"run trime-bm25 search --num_shards {self.info.num_shards} --shard_id {', '.join(shards)}"

    def _path(self, begin: int) -> str:
        return os.path.join(self.folder, f"neighbors-{begin:08d}.npz")
