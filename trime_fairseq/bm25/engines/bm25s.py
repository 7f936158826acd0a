"""The engine without Java: the package bm25s, whose index is a sparse matrix of scores."""

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from .base import K1, NONE, B, Hits, need, no_hits

PARAMETERS = "params.index.json"


class Bm25s:
    """bm25s with Lucene's formula over English words without stop words, not stemmed."""

    name = "bm25s"

    def build(self, texts: list[str], folder: str, threads: int) -> None:
        """Takes one thread."""
        index_of(tokenized(texts)).save(folder)
        try:
            # NumPy does not notice a disk that is full at the last bytes of a file.
            _load(folder)
        except ValueError as error:
            raise OSError(f"what was written cannot be read: {error.__cause__ or error}") from error

    def open(self, folder: str, threads: int) -> "Bm25sSearcher":
        if not os.path.exists(os.path.join(folder, PARAMETERS)):
            raise ValueError(f"{folder} is no index of bm25s: run trime-bm25 index with `engine` bm25s")
        return Bm25sSearcher(_load(folder), threads)


def _load(folder: str) -> Any:
    """An index of bm25s, mapped into memory. Raises ValueError if it is damaged."""
    library = need("bm25s", "bm25s")
    try:
        index = library.BM25.load(folder, mmap=True)
        _check(index)
    # Python's and NumPy's readers raise a dozen kinds for damaged files.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{folder} is no index of bm25s that can be read ({reason}): remove it and build it again"
        ) from error
    return index


def _check(index: Any) -> None:
    """Raises ValueError if the arrays are not a matrix of scores."""
    data, rows, ends = (index.scores[name] for name in ("data", "indices", "indptr"))
    count = int(index.scores["num_docs"])
    if not (data.ndim == rows.ndim == ends.ndim == 1 and len(data) == len(rows) and len(ends)):
        raise ValueError("its arrays are of other sizes")
    if ends[0] != 0 or ends[-1] != len(data) or (np.diff(ends) < 0).any():
        raise ValueError("its words begin and end elsewhere")
    if len(rows) and not 0 <= rows.min() <= rows.max() < count:
        raise ValueError(f"it holds segments beyond the {count:,} that it has")
    if not np.isfinite(data).all():
        raise ValueError("its scores are not finite")
    if not all(type(word) is int and 0 <= word < len(ends) for word in index.vocab_dict.values()):
        raise ValueError("it holds words without scores")


class Bm25sSearcher:
    """See :class:`trime_fairseq.bm25.engines.base.Searcher`. Its processes share the index."""

    engine = Bm25s.name

    def __init__(self, index: Any, threads: int) -> None:
        self._index, self._threads = index, threads
        self._pool: ProcessPoolExecutor | None = None
        if threads > 1:
            # Forked, so that none of them reads the index again.
            fork = multiprocessing.get_context("fork")
            self._pool = ProcessPoolExecutor(threads, fork, _keep, (index, os.getpid()))

    def __len__(self) -> int:
        return int(self._index.scores["num_docs"])

    def search(self, queries: list[str], k: int) -> Hits:
        ids, scores = no_hits(len(queries), k)
        # Several tasks for each process, because some take longer than others.
        size = max(1, -(-len(queries) // (4 * self._threads)))
        pieces = [queries[begin : begin + size] for begin in range(0, len(queries), size)]
        begin = 0
        try:
            for part_ids, part_scores in self._map(pieces, min(k, len(self))):
                end = begin + len(part_ids)
                ids[begin:end, : part_ids.shape[1]] = part_ids
                scores[begin:end, : part_ids.shape[1]] = part_scores
                begin = end
        except BrokenProcessPool as error:
            message = "a process of the search was killed, perhaps for its memory: lower `threads`"
            raise ValueError(message) from error
        # bm25s fills up with any segments.
        ids[scores <= 0] = NONE
        return ids, scores

    def _map(self, pieces: list[list[str]], k: int) -> Iterable[Hits]:
        if self._pool is None:
            return (_search(self._index, piece, k) for piece in pieces)
        return self._pool.map(_search_kept, pieces, [k] * len(pieces))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def index_of(words: list[list[str]]) -> Any:
    """The index of bm25s over texts that :func:`tokenized` has split."""
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    if not any(words):
        raise ValueError("the segments hold no words but stop words: there is nothing to search for")
    index = need("bm25s", "bm25s").BM25(method="lucene", k1=K1, b=B)
    index.index(words, show_progress=False)
    return index


def tokenized(texts: list[str]) -> list[list[str]]:
    """The words that bm25s indexes."""
    tokens: list[list[str]] = need("bm25s", "bm25s").tokenize(
        texts, stopwords="en", return_ids=False, show_progress=False
    )
    return tokens


_kept: Any = None


def _keep(index: Any, parent: int) -> None:
    global _kept
    _kept = index
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process when its parent is killed; its pool would let it wait forever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _search_kept(queries: list[str], k: int) -> Hits:
    return _search(_kept, queries, k)


def _search(index: Any, queries: list[str], k: int) -> Hits:
    found = index.retrieve(tokenized(queries), k=k, show_progress=False, backend_selection="numpy")
    return np.asarray(found.documents, np.int32), np.asarray(found.scores, np.float32)
