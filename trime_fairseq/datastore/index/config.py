"""What an index is made of, and the file beside an index that says so."""

import os
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, ClassVar, Dict, Optional

from ...files import Description, NotNegative, Positive
from ..datastore import DatastoreError, Manifest

METRICS = ("l2", "ip", "cos")

# What tells two trained indexes apart, two finished ones, two that are half built.
TRAINED = ("metric", "dimension", "factory", "seed", "training_keys", "training", "datastore")
FINISHED = (*TRAINED, "starting_point", "rows")
PARTIAL = (*FINISHED, "chunk")


def import_faiss() -> ModuleType:
    """Faiss, which is an optional dependency.

    Raises:
        DatastoreError: if it is not installed.
    """
    # PyTorch and Faiss each bring an OpenMP runtime, whose waiting threads spin against the other's
    # working ones. Only a runtime that is loaded after this setting obeys it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import faiss
    except ImportError as error:
        raise DatastoreError(
            "Faiss is not installed: pip install faiss-cpu, or faiss-gpu for indexes that are built or "
            f"searched on a GPU ({error})"
        ) from error
    return faiss


def faiss_error(error: Exception) -> str:
    """The part of an error of Faiss that is not about its source code."""
    return str(error).rsplit("Error: ", 1)[-1].rsplit(": ", 1)[-1].strip()


def index_path(name: str, metric: str) -> str:
    """NAME.METRIC, the file of an index."""
    return f"{name}.{metric}"


def sidecar_path(path: str) -> str:
    """The file that describes the index ``path``."""
    return f"{path}.json"


@dataclass(frozen=True)
class IndexConfig:
    """The index that shall be built.

    Attributes:
        metric: ``l2``; ``ip``, the inner product; or ``cos``, the inner product of normalised keys (queries
            must be normalised, too).
        dimension: d of the keys.
        factory: what ``faiss.index_factory`` shall make.
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
            raise DatastoreError(f"--dist {self.metric}: must be one of {', '.join(METRICS)}")
        if self.dimension < 1 or self.training_keys < 1:
            raise DatastoreError("--dimension and --num_training_keys must be at least 1")
        self.new_index()

    @classmethod
    def create(
        cls,
        metric: str,
        dimension: int,
        *,
        ncentroids: int = 4096,
        code_size: int = 64,
        factory: Optional[str] = None,
        seed: int = 1,
        training_keys: int = 1_000_000,
    ) -> "IndexConfig":
        """As published, ``ncentroids`` lists of keys in ``code_size`` bytes; or ``factory``.

        Raises:
            DatastoreError: if ``code_size`` does not divide ``dimension``, or Faiss cannot make the index.
        """
        if factory is None:
            if ncentroids < 1:
                raise DatastoreError(f"--ncentroids {ncentroids}: must be at least 1")
            if code_size < 1 or dimension % code_size:
                raise DatastoreError(
                    f"--code_size {code_size} does not divide the dimension of the keys, {dimension}: "
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
        except RuntimeError as error:
            raise DatastoreError(
                f"--factory {self.factory}: Faiss cannot make it for keys of dimension {self.dimension} "
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
                f"{rows:,} keys are fewer than the {lists:,} lists of the index: lower --ncentroids "
                "(or another --factory)"
            )
        if self.training_keys < lists:
            raise DatastoreError(
                f"--num_training_keys {self.training_keys:,} is less than the {lists:,} lists of the index "
                "(--ncentroids)"
            )


def _without_polysemous_codes(index: Any) -> None:
    """Training for them takes most of the time, only a search that asks for them is faster, and the published
    indexes have none; but ``index_factory`` asks for them."""
    faiss = import_faiss()
    inverted = faiss.try_extract_index_ivf(index)
    quantised = faiss.downcast_index(inverted if inverted is not None else index)
    if hasattr(quantised, "do_polysemous_training"):
        quantised.do_polysemous_training = False


@dataclass(frozen=True)
class IndexSidecar(Description):
    """What is in an index, and what it was made from: ``NAME.METRIC.json``.

    Attributes:
        metric, dimension, factory, seed, training_keys: see :class:`IndexConfig`.
        rows: number of keys in the index when it is complete.
        starting_point: row of the first of them.
        datastore: see :meth:`trime_fairseq.datastore.datastore.Datastore.fingerprint`.
        datastore_rows: number of rows of the datastore.
        training: ``sample`` of all keys, or the ``first`` ones.
        chunk: number of keys that were added at a time.
        probe: number of lists searched by default; None for indexes without lists.
        key_type, dictionary_hash, checkpoint_hash, data_hash: of the manifest; None without one.
        training_seconds, adding_seconds: time it took.
    """

    error: ClassVar[type[ValueError]] = DatastoreError

    metric: str
    dimension: Positive
    factory: str
    seed: int
    training_keys: Positive
    rows: Positive
    starting_point: NotNegative
    datastore: str
    datastore_rows: Positive
    training: str
    chunk: Positive
    probe: Positive | None = None
    key_type: Optional[str] = None
    dictionary_hash: Optional[str] = None
    checkpoint_hash: Optional[str] = None
    data_hash: Optional[str] = None
    faiss_version: Optional[str] = None
    training_seconds: float = 0.0
    adding_seconds: float = 0.0
    complete: bool = False

    @classmethod
    def plan(
        cls,
        config: IndexConfig,
        manifest: Optional[Manifest],
        *,
        datastore: str,
        datastore_rows: int,
        training: str,
        chunk: int,
        starting_point: int = 0,
    ) -> "IndexSidecar":
        """The description of an index that shall be built."""
        names = ("key_type", "dictionary_hash", "checkpoint_hash", "data_hash")
        made_from: Dict[str, Any] = {name: getattr(manifest, name, None) for name in names}
        return cls(
            **asdict(config),
            **made_from,
            rows=datastore_rows - starting_point,
            starting_point=starting_point,
            datastore=datastore,
            datastore_rows=datastore_rows,
            training=training,
            chunk=chunk,
            faiss_version=import_faiss().__version__,
        )

    @classmethod
    def read(cls, path: str) -> Optional["IndexSidecar"]:
        """The description of the index ``path``; None if there is none.

        Raises:
            DatastoreError: for a file that describes no index, or is of a later format.
        """
        file = sidecar_path(path)
        if not os.path.exists(file):
            return None
        otherwise = "does not describe an index: remove it, or choose another --faiss_index"
        return cls.load(file, otherwise)

    def write(self, path: str) -> None:
        """Writes the description of the index ``path``."""
        self.save(sidecar_path(path))
