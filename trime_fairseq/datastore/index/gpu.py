"""Training and encoding keys on GPUs, with a Faiss that has them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datastore import DatastoreError
from .faiss_library import faiss_error, import_faiss


def require_gpu(index: Any) -> None:
    """Raises DatastoreError if an index of this kind cannot be built on a GPU here."""
    faiss = import_faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise DatastoreError(
            "`use_gpu`: this Faiss has no GPU support: pip install faiss-gpu, or leave it out"
        )
    if faiss.get_num_gpus() < 1:
        raise DatastoreError("`use_gpu`: Faiss sees no GPU: check CUDA_VISIBLE_DEVICES, or leave it out")
    if faiss.try_extract_index_ivf(index) is None:
        raise DatastoreError("`use_gpu`: only indexes with lists (IVF...) are built on a GPU: leave it out")


def train_on_gpus(index: Any, keys: NDArray[np.float32]) -> None:
    """Trains an IVF index; all GPUs together find the centroids of the lists.

    Args:
        index: Faiss CPU index.
        keys: float32 [n, d].
    """
    faiss = import_faiss()
    inverted = faiss.extract_index_ivf(index)
    flat = faiss.IndexFlat(inverted.d, inverted.metric_type)
    # Kept in a variable: the index holds a bare pointer.
    clustering = faiss.index_cpu_to_all_gpus(flat)
    inverted.clustering_index = clustering
    try:
        index.train(keys)
    finally:
        inverted.clustering_index = None


class GpuAdder:
    """Encodes keys on the first GPU and merges them into a CPU index; the GPU holds one chunk at a time.

    One GPU encodes faster than disks deliver.

    Args:
        index: trained Faiss CPU index, empty or not.
        empty: the same index without keys.
    """

    def __init__(self, index: Any, empty: Any) -> None:
        faiss = import_faiss()
        self._index = index
        self._resources: list[Any] = [faiss.StandardGpuResources()]
        options = faiss.GpuClonerOptions()
        # Long codes are refused with tables in float32, which only searches need.
        options.useFloat16 = True
        options.allowCpuCoarseQuantizer = True
        try:
            self._gpu_index = faiss.index_cpu_to_gpu(self._resources[0], 0, empty, options)
        except RuntimeError as error:
            raise DatastoreError(
                f"`use_gpu`: Faiss cannot build this index on a GPU ({faiss_error(error)}): leave it out, "
                "the training done so far is kept"
            ) from error

    def add(self, keys: NDArray[np.float32], ids: NDArray[np.int64]) -> None:
        """Adds keys [n, d] with ids [n]."""
        self._gpu_index.add_with_ids(keys, ids)
        self._index.merge_from(import_faiss().index_gpu_to_cpu(self._gpu_index), 0)
        self._gpu_index.reset()
