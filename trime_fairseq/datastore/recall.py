"""Recall of an approximate index: how many of the true nearest keys it finds."""

import importlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .datastore import Datastore, DatastoreError
from .index.faiss_library import import_faiss

_KEYS_AT_A_TIME = 2**16


class RecallSample:
    """A sample of the queries of an evaluation, and what the index found for them.

    Args:
        store: with its keys.
        metric: ``ip``, ``l2`` or ``cos``.
        size: number of queries, spread evenly over the text.
        tokens: number of tokens that will be searched.

    Raises:
        DatastoreError: if the store has no keys.
    """

    def __init__(self, store: Datastore, metric: str, size: int, tokens: int) -> None:
        if store.keys is None:
            raise DatastoreError(f"recall (`size`) needs the keys of {store.prefix}: they are not stored")
        self._store, self._metric = store, metric
        self._step = max(1, tokens // size)
        self._size = size
        self._seen = 0
        self._taken: list[tuple[Tensor, Tensor]] = []

    def add(self, queries: Tensor, rows: Tensor) -> None:
        """Queries [N, d] and the rows found for them, int64 [N, k]."""
        first = -self._seen % self._step
        self._seen += len(queries)
        if first >= len(queries):
            return
        chosen = torch.arange(first, len(queries), self._step, device=queries.device)
        room = self._size - sum(len(taken) for taken, _ in self._taken)
        if room > 0:
            self._taken.append((queries[chosen[:room]].float(), rows[chosen[:room]]))

    def report(self) -> dict[str, Any]:
        """Searches all keys for the sample. ``recall_at_1`` is the share of queries whose nearest key was
        found, ``recall_at_k`` the share of the k nearest keys that was."""
        if not self._taken:
            return {}
        queries = torch.cat([taken for taken, _ in self._taken]).cpu().numpy()
        found = torch.cat([rows for _, rows in self._taken]).cpu().numpy()
        exact = exact_search(self._store, queries, found.shape[1], self._metric)
        hits = [len(np.intersect1d(here, there)) for here, there in zip(found, exact)]
        nearest = (found == exact[:, :1]).any(1)
        return {
            "recall_at_1": float(nearest.mean()),
            "recall_at_k": float(np.mean(hits) / found.shape[1]),
            "recall_queries": len(queries),
        }


def exact_search(store: Datastore, queries: NDArray[np.float32], k: int, metric: str) -> NDArray[np.int64]:
    """Rows of the k nearest of all keys, int64 [N, k], nearest first, by going through the keys once."""
    faiss = import_faiss()
    search: Any = importlib.import_module("faiss.contrib.exhaustive_search")
    assert store.keys is not None
    keys = store.keys

    def blocks() -> Any:
        for begin in range(0, len(keys), _KEYS_AT_A_TIME):
            block = np.array(keys[begin : begin + _KEYS_AT_A_TIME], dtype=np.float32)
            if metric == "cos":
                faiss.normalize_L2(block)
            yield block

    if metric == "cos":
        queries = queries.copy()
        faiss.normalize_L2(queries)
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    _, rows = search.knn_ground_truth(queries, blocks(), k, metric_type=kind)
    return np.asarray(rows, dtype=np.int64)
