"""What a search engine has to offer: ``lucene.py`` and ``bm25s.py`` are two of them."""

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# BM25's parameters, Pyserini's defaults.
K1, B = 0.9, 0.4
# In place of the id of a neighbour that there is not.
NONE = -1

# ids int32 [queries, k] and scores float32 [queries, k], best first; NONE and 0 beyond the last.
Hits = tuple[NDArray[np.int32], NDArray[np.float32]]


class Searcher(Protocol):
    """An index that is open.

    Attributes:
        engine: the name of its engine.
    """

    engine: str

    def __len__(self) -> int:
        """The number of segments that can be found."""

    def search(self, queries: list[str], k: int) -> Hits:
        """The ``k`` best segments for each query, all of whose words count."""

    def close(self) -> None: ...


class Engine(Protocol):
    """Builds and opens indexes."""

    name: str

    def build(self, texts: list[str], folder: str, threads: int) -> None:
        """Writes an index of the segments into a new folder."""

    def open(self, folder: str, threads: int) -> Searcher:
        """Opens an index for searches on ``threads`` threads. Raises ValueError if there is none."""


def no_hits(queries: int, k: int) -> Hits:
    """Hits of no segment, to be filled."""
    return np.full((queries, k), NONE, dtype=np.int32), np.zeros((queries, k), dtype=np.float32)


def need(module: str, package: str) -> Any:
    """The imported module.

    Raises:
        ValueError: if it is not installed, saying to install ``package``.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{module} cannot be imported ({error}): install {package}") from error
