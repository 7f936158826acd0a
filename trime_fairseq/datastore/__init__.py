"""External memory: writing keys, indexing them, searching them. NumPy, Faiss and PyTorch, without fairseq.

::

    store = open_datastore("dstore")
    path = build_index(store, IndexConfig.create("ip", store.dimension), "knn.index")
    neighbors = Retriever(open_index(path), store, k=1024).search(queries)

Faiss is imported when it is first needed; PyTorch with the names that use it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .builder import build_index
from .contents import check_keys, check_values
from .datastore import METRICS, Datastore, DatastoreError, Manifest, open_datastore
from .index.config import IndexConfig
from .index.files import Index, open_index
from .index.manifest import IndexManifest
from .information import information
from .streaming import StreamingIndex
from .verification import Finding, verify
from .writer import DatastoreWriter

if TYPE_CHECKING:
    from .background import BackgroundSink, RowSink
    from .recall import RecallSample
    from .retriever import SIMILARITIES, Neighbors, Retriever, gpus_for_index
else:
    # Building an index needs no PyTorch, which takes seconds to import.
    _WITH_PYTORCH = {
        **dict.fromkeys(("BackgroundSink", "RowSink"), "background"),
        **dict.fromkeys(("RecallSample",), "recall"),
        **dict.fromkeys(("SIMILARITIES", "Neighbors", "Retriever", "gpus_for_index"), "retriever"),
    }

    def __getattr__(name: str) -> Any:
        if name not in _WITH_PYTORCH:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_WITH_PYTORCH[name]}"), name)


__all__ = [
    "METRICS",
    "SIMILARITIES",
    "BackgroundSink",
    "Datastore",
    "DatastoreError",
    "DatastoreWriter",
    "Finding",
    "Index",
    "IndexConfig",
    "IndexManifest",
    "Manifest",
    "Neighbors",
    "RecallSample",
    "Retriever",
    "RowSink",
    "StreamingIndex",
    "build_index",
    "check_keys",
    "check_values",
    "gpus_for_index",
    "information",
    "open_datastore",
    "open_index",
    "verify",
]
