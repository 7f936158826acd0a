"""The file beside an index that says what is in it and what it was made from."""

import os
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

from ...files import Description, NotNegative, Positive
from ..datastore import METRICS, DatastoreError, Manifest
from .config import IndexConfig
from .faiss_library import import_faiss

# What tells two trained indexes apart, two finished ones, two that are half built.
TRAINED = ("metric", "dimension", "factory", "seed", "training_keys", "training", "datastore")
FINISHED = (*TRAINED, "starting_point", "rows")
PARTIAL = (*FINISHED, "chunk")


def index_manifest_path(path: str) -> str:
    """The manifest of the index file ``path``."""
    return f"{path}.json"


@dataclass(frozen=True)
class IndexManifest(Description):
    """What is in an index, and what it was made from: ``NAME.METRIC.json``.

    It is written before the index gets its name. An index counts if it agrees with its manifest.

    Attributes:
        metric, dimension, factory, seed, training_keys: see :class:`IndexConfig`.
        rows: number of keys in the index when it is complete.
        starting_point: row of the first of them.
        datastore: see :meth:`trime_fairseq.datastore.Datastore.fingerprint`.
        datastore_rows: number of rows of the datastore.
        training: ``sample`` of all keys, or the ``first`` ones.
        chunk: number of keys that were added at a time.
        probe: number of lists searched by default; None for indexes without lists.
        key_type, dictionary_hash, checkpoint_hash, data_hash: of the datastore's manifest; None without one.
        training_seconds, adding_seconds: time it took.
        complete: whether all rows are in the index.
        bytes: size of the index file; None in manifests of version 0.1.0.
        checksum: of the index file, see :func:`trime_fairseq.files.file_checksum`; None in manifests of
            earlier versions.
        replaced_checksum: of the half-built index before this one, which may be there still after a kill.
        values_checksum: of the datastore's values; None where the index is built before they are complete,
            and in manifests of earlier versions.
    """

    error: ClassVar[type[ValueError]] = DatastoreError

    metric: Annotated[str, METRICS]
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
    key_type: str | None = None
    dictionary_hash: str | None = None
    checkpoint_hash: str | None = None
    data_hash: str | None = None
    faiss_version: str | None = None
    training_seconds: float = 0.0
    adding_seconds: float = 0.0
    complete: bool = False
    bytes: NotNegative | None = None
    checksum: str | None = None
    replaced_checksum: str | None = None
    values_checksum: str | None = None

    @classmethod
    def describe(
        cls,
        config: IndexConfig,
        store: Manifest | None,
        *,
        datastore: str,
        datastore_rows: int,
        training: str,
        chunk: int,
        starting_point: int = 0,
        values_checksum: str | None = None,
    ) -> "IndexManifest":
        """The manifest of an index to build; ``store`` is the manifest of the datastore."""
        names = ("key_type", "dictionary_hash", "checkpoint_hash", "data_hash")
        made_from: dict[str, Any] = {name: getattr(store, name, None) for name in names}
        return cls(
            **asdict(config),
            **made_from,
            rows=datastore_rows - starting_point,
            starting_point=starting_point,
            datastore=datastore,
            datastore_rows=datastore_rows,
            training=training,
            chunk=chunk,
            values_checksum=values_checksum,
            faiss_version=import_faiss().__version__,
        )

    @classmethod
    def read(cls, path: str) -> "IndexManifest | None":
        """The manifest of the index file ``path``; None if there is none.

        Raises:
            DatastoreError: for a file that describes no index, or is of a later format.
        """
        file = index_manifest_path(path)
        if not os.path.exists(file):
            return None
        return cls.load(file, "does not describe an index: remove it, or choose another `name`")

    def write(self, path: str) -> None:
        """Writes the manifest of the index file ``path``."""
        self.save(index_manifest_path(path))
