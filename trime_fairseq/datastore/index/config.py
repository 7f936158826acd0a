"""What an index is made of."""

import re
from dataclasses import dataclass
from typing import Any

from ...flags.bounds import Bounds, check_argument
from ..datastore import METRICS, DatastoreError
from .faiss_library import faiss_error, import_faiss

# More lists would take 200 MB before a key is there; the largest published indexes have a quarter of them.
MOST_LISTS = 2**22
# Of numbers of rows and keys; more than that no file holds.
ROWS = Bounds(1, 2**62)
# Faiss counts the lists to visit in 64 bits, but notes them in 32 in places.
PROBES = Bounds(1, 2**31 - 1)
_SEED = Bounds(0, 2**62)
# What the other numbers of a factory string may be at most.
_MOST = 2**16
_MOST_NEIGHBORS, _MOST_BITS, _MOST_IMI_BITS = 512, 16, 11


def index_path(name: str, metric: str) -> str:
    """NAME.METRIC, the file of an index."""
    return f"{name}.{metric}"


@dataclass(frozen=True)
class IndexConfig:
    """The index to build.

    Attributes:
        metric: ``l2``; ``ip``, the inner product; or ``cos``, the inner product of normalised keys (queries
            must be normalised, too).
        dimension: d of the keys.
        factory: string for ``faiss.index_factory``.
        seed: of the sample of keys for training.
        training_keys: the largest number of keys for training.

    Raises:
        DatastoreError: if Faiss cannot make the index.
    """

    metric: str
    dimension: int
    factory: str
    seed: int = 1
    training_keys: int = 1_000_000

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise DatastoreError(f"`metric` {self.metric}: must be one of {', '.join(METRICS)}")
        for name, bounds in (("dimension", ROWS), ("training_keys", ROWS), ("seed", _SEED)):
            check_argument(name, getattr(self, name), bounds, DatastoreError)
        _check_factory(self.factory)
        self.new_index()

    @classmethod
    def create(
        cls,
        metric: str,
        dimension: int,
        *,
        ncentroids: int = 4096,
        code_size: int = 64,
        factory: str | None = None,
        seed: int = 1,
        training_keys: int = 1_000_000,
    ) -> "IndexConfig":
        """As published, ``ncentroids`` lists of keys in ``code_size`` bytes; or ``factory``.

        Raises:
            DatastoreError: if ``code_size`` does not divide ``dimension``, or Faiss cannot make the index.
        """
        if factory is None:
            check_argument("ncentroids", ncentroids, Bounds(1, MOST_LISTS), DatastoreError)
            if code_size < 1 or dimension % code_size:
                raise DatastoreError(
                    f"`code_size` {code_size} does not divide the dimension of the keys, {dimension}: "
                    "choose one that does"
                )
            factory = f"IVF{ncentroids},PQ{code_size}"
        return cls(metric, dimension, factory, seed, training_keys)

    def new_index(self) -> Any:
        """An untrained Faiss index."""
        faiss = import_faiss()
        metric = faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        try:
            index = faiss.index_factory(self.dimension, self.factory, metric)
        except (RuntimeError, MemoryError) as error:
            raise DatastoreError(
                f"`factory` {self.factory}: Faiss cannot make it for keys of dimension {self.dimension} "
                f"({faiss_error(error)})"
            ) from error
        _without_polysemous_codes(index)
        return index

    def check_rows(self, rows: int) -> None:
        """Raises DatastoreError if ``rows`` keys are too few to train the index."""
        faiss = import_faiss()
        inverted = faiss.try_extract_index_ivf(self.new_index())
        lists = inverted.nlist if inverted is not None else 1
        if rows < lists:
            raise DatastoreError(
                f"{rows:,} keys are fewer than the {lists:,} lists of the index: lower `ncentroids` "
                "(or another `factory`)"
            )
        if self.training_keys < lists:
            raise DatastoreError(
                f"`training_keys` {self.training_keys:,} is less than the {lists:,} lists of the index "
                "(`ncentroids`)"
            )


def _check_factory(factory: str) -> None:
    """Refuses numbers for which Faiss would take all memory, or end the process, when it makes the index."""
    for name, digits in re.findall(r"([A-Za-z]*)(\d+)", factory):
        number, most = int(digits[:20]), _MOST
        if name == "IVF":
            most = MOST_LISTS
        elif name.endswith(("HNSW", "NSG")):
            most = _MOST_NEIGHBORS
        elif name == "x":
            most = _MOST_IMI_BITS if "IMI" in factory else _MOST_BITS
        if not 1 <= number <= most:
            raise DatastoreError(f"`factory` {factory}: {name}{number:,} must be from 1 to {most:,}")


def _without_polysemous_codes(index: Any) -> None:
    """Training for them takes most of the time, only a search that asks for them is faster, and the published
    indexes have none; but ``index_factory`` asks for them."""
    faiss = import_faiss()
    inverted = faiss.try_extract_index_ivf(index)
    quantised = faiss.downcast_index(inverted if inverted is not None else index)
    if hasattr(quantised, "do_polysemous_training"):
        quantised.do_polysemous_training = False
