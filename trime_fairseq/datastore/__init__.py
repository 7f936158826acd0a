"""External memory: writing, index, search. Plain NumPy, PyTorch and Faiss; knows nothing of fairseq."""

from .datastore import Datastore, DatastoreError, Manifest, open_datastore

__all__ = ["Datastore", "DatastoreError", "Manifest", "open_datastore"]
