"""The neighbours of all segments: a folder of pieces, each written whole, by any number of processes.

RESULTS/search.info               what was searched: see SearchInfo
RESULTS/neighbors-00001000.npz    of segments 1,000 and following: ids int32 and scores float32 [piece, k];
                                  begin and text_hash say which (earlier versions did not write them)
"""

import os
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from glob import escape as glob_escape
from glob import glob
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..files import Positive, open_regular, remove_leftovers, whole_file
from .engines.base import NONE, Hits
from .limits import MOST_SEGMENTS, MOST_SHARDS, check_folder
from .segments import SegmentsInfo

_PIECE = re.compile(r"neighbors-(\d{8,10})\.npz")
# Bytes of a piece, apart from its ids and scores.
_FRAME = 4096


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
    k: Annotated[int, 1, MOST_SEGMENTS]
    piece: Positive
    num_shards: Annotated[int, 1, MOST_SHARDS]


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
        results = cls(results_path, info)
        check_folder("results_path", results_path, SearchInfo.suffix.strip("/"), results._bytes_to_write())
        # Of pieces that a killed run had begun, and that another one has written in the meantime, too.
        for left in {name.rsplit(".", 2)[0] for name in glob(f"{glob_escape(results_path)}/neighbors-*.tmp")}:
            remove_leftovers(left)
        info.write(results_path)
        return results

    def pieces(self, shard_id: int = 0, num_shards: int = 1) -> Iterator[tuple[int, int]]:
        """First and last segment + 1 of the pieces of a shard, which are consecutive."""
        first, last = self._shard(shard_id, num_shards)
        for start in self._starts[first:last]:
            yield start, self._end(start)

    @property
    def _starts(self) -> range:
        return range(0, self.info.segments, self.info.piece)

    def _shard(self, shard_id: int, num_shards: int) -> tuple[int, int]:
        """Number of the first piece of a shard, and of the last + 1."""
        first, last = (len(self._starts) * number // num_shards for number in (shard_id, shard_id + 1))
        return first, last

    def _end(self, begin: int) -> int:
        return min(begin + self.info.piece, self.info.segments)

    def has(self, begin: int) -> bool:
        """Whether the piece whose first segment is ``begin`` is there, undamaged."""
        try:
            self._read_piece(begin)
        except FileNotFoundError:
            return False
        except PermissionError:
            raise
        except ValueError:
            return False
        return True

    def missing(self, most: int = 1000) -> list[int]:
        """First segments of the pieces that are not there, of the first ``most`` of them."""
        there, found = set(self._there()), []
        # However many the description claims, no more are looked at than there are files.
        for number, begin in enumerate(self._starts):
            if number not in there:
                found.append(begin)
                if len(found) == most:
                    break
        return found

    def _there(self) -> list[int]:
        """Numbers of the pieces that are there, ascending."""
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        starts = [int(name[1]) for name in map(_PIECE.fullmatch, names) if name]
        return sorted({begin // self.info.piece for begin in starts if begin in self._starts})

    def write(self, begin: int, ids: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
        """Writes a piece, whose file is there as a whole or not at all.

        Raises:
            ValueError: for ids or scores that are none.
        """
        self._check(begin, ids, scores)
        with whole_file(self._path(begin), "wb", follow_links=False) as file:
            np.savez(file, ids=ids, scores=scores, begin=begin, text_hash=self.info.text_hash)

    def read(self) -> Hits:
        """Ids int32 [segments, k] and scores float32 [segments, k] of all neighbours, best first; -1 and 0
        beyond the last.

        Raises:
            ValueError: if pieces are missing, naming the shards to run again, or damaged.
        """
        missing = self.missing(1)
        if missing:
            there, count = self._there(), len(self._starts)
            raise ValueError(
                f"`results_path` {self.folder}: {count - len(there)} of {count} pieces are missing, "
                f"the first of segment {missing[0]:,}: {self._mend(there)}"
            )
        # Before memory is taken for what the description claims.
        for begin in self._starts:
            self._check_size(begin)
        shape = (self.info.segments, self.info.k)
        try:
            ids, scores = np.empty(shape, np.int32), np.empty(shape, np.float32)
        except MemoryError as error:
            raise ValueError(
                f"`results_path` {self.folder}: {error}: search again with a lower `k`"
            ) from error
        for begin, end in self.pieces():
            ids[begin:end], scores[begin:end] = self._read_piece(begin)
        return ids, scores

    def _read_piece(self, begin: int) -> Hits:
        path, most = self._path(begin), self._bytes_of_piece(begin) + _FRAME
        try:
            number = open_regular(path, os.O_RDONLY, follow_links=True)
            with open(number, "rb") as file, np.load(file, allow_pickle=False) as piece:
                if sum(member.file_size for member in piece.zip.infolist()) > most:
                    raise ValueError("it holds more than a piece does")
                ids, scores = piece["ids"], piece["scores"]
                self._check(begin, ids, scores)
                if "begin" in piece and int(piece["begin"]) != begin:
                    raise ValueError(f"it is that of segment {int(piece['begin'])}")
                if "text_hash" in piece and str(piece["text_hash"]) != self.info.text_hash:
                    raise ValueError("it is of other segments")
        except (FileNotFoundError, PermissionError):
            raise
        # Python's and NumPy's readers raise a dozen kinds for damaged files.
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise ValueError(f"{path} is damaged ({reason}): remove it and search again") from error
        return ids, scores

    def _check(self, begin: int, ids: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
        """Raises ValueError for anything else than the neighbours of the segments of a piece."""
        shape = (self._end(begin) - begin, self.info.k)
        for name, array, kind in (("ids", ids, np.int32), ("scores", scores, np.float32)):
            if array.shape != shape or array.dtype != kind:
                wanted = f"{np.dtype(kind)} {list(shape)}"
                raise ValueError(f"{name} must be {wanted}, not {array.dtype} {list(array.shape)}")
        if ids.size and not NONE <= ids.min() <= ids.max() < self.info.segments:
            raise ValueError(f"ids must be from {NONE} to {self.info.segments - 1}")
        if (ids == np.arange(begin, begin + len(ids), dtype=np.int32)[:, None]).any():
            raise ValueError("a segment is its own neighbour")
        if not np.isfinite(scores).all():
            raise ValueError("scores must be finite")

    def _bytes_of_piece(self, begin: int) -> int:
        return (self._end(begin) - begin) * self.info.k * 8

    def _check_size(self, begin: int) -> None:
        if os.path.getsize(self._path(begin)) < self._bytes_of_piece(begin):
            raise ValueError(f"{self._path(begin)} is damaged (it is too short): remove it and search again")

    def _bytes_to_write(self) -> int:
        """Bytes of the ids and scores that are still missing, of all shards."""
        left = len(self._starts) - len(self._there())
        return min(left * self.info.piece, self.info.segments) * self.info.k * 8

    def _mend(self, there: list[int]) -> str:
        count = self.info.num_shards
        if count == 1:
            return "run trime-bm25 search again, it continues"
        shards = []
        for shard in range(count):
            first, last = self._shard(shard, count)
            if bisect_left(there, last) - bisect_left(there, first) < last - first:
                shards.append(str(shard))
        more = f" and {len(shards) - 20} more" if len(shards) > 20 else ""
        return f"run trime-bm25 search with `num_shards` {count} `shard_id` {', '.join(shards[:20])}{more}"

    def _path(self, begin: int) -> str:
        return os.path.join(self.folder, f"neighbors-{begin:08d}.npz")
