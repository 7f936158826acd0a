"""Opens datastore and index as the flags of an evaluation ask, and refuses what does not fit the model."""

import logging
from dataclasses import dataclass
from typing import Any

from ..datastore import Datastore, DatastoreError, Retriever, gpus_for_index, open_datastore, open_index
from ..files import file_hash
from ..flags import flag, name_flags

logger = logging.getLogger(__name__)

# Flags of the arguments that errors of the datastore room name, where :func:`flag` does not tell.
FLAGS = {
    "begin": "--batch-size",
    "devices": "--use-faiss-cpu",
    "end": "--max-tokens",
    "fp16": "--dstore-fp16",
    "key_dtype": "--dstore-fp16",
    "load_keys": "--no-load-keys",
    "metric": "--faiss-metric-type",
    "model": "--path",
    "name": "--indexfile",
    "need_keys": "--no-load-keys",
    "prefix": "--dstore-mmap",
    "rows": "--dstore-size",
    "similarity": "--knn-sim-func",
    "size": "--check-recall",
}


@dataclass(frozen=True)
class Querying:
    """The model that will ask: dimension and type of its keys, its dictionary, its file."""

    dimension: int
    key_type: str
    dictionary_hash: str
    checkpoint: str | None


def open_external(flags: Any, model: Querying, use_gpu: bool) -> tuple[Retriever, Datastore, str]:
    """The retriever, the datastore and the metric.

    Args:
        flags: with the fields of the evaluation flags of the same names, from ``dstore_filename`` to
            ``use_faiss_cpu``.
        model: what the datastore must fit.
        use_gpu: whether the model runs on a GPU.

    Raises:
        DatastoreError: naming file or flag and the mend.
    """
    for name in ("dstore_filename", "indexfile"):
        if not getattr(flags, name):
            raise DatastoreError(f"external memory needs {flag(name)}")
    try:
        return _open(flags, model, use_gpu)
    except DatastoreError as error:
        raise DatastoreError(name_flags(str(error), **FLAGS)) from error


def _open(flags: Any, model: Querying, use_gpu: bool) -> tuple[Retriever, Datastore, str]:
    recomputes = flags.knn_sim_func not in (None, "do_not_recomp_l2")
    store = open_datastore(
        flags.dstore_filename,
        rows=flags.dstore_size,
        fp16=flags.dstore_fp16,
        need_keys=flags.check_recall > 0 or (recomputes and not flags.no_load_keys),
    )
    _check_store(store, model)
    asked = None if flags.faiss_metric_type is None else str(flags.faiss_metric_type)
    index = open_index(flags.indexfile, metric=asked)
    index.check(store, model.dimension)
    devices = gpus_for_index() if use_gpu and not flags.use_faiss_cpu else ()
    if use_gpu and not devices and not flags.use_faiss_cpu:
        logger.warning("TRIME: this Faiss knows no GPU; searching on the CPU (--use-faiss-cpu says so)")
    retriever = Retriever(
        index,
        store,
        k=flags.k,
        probe=flags.probe,
        similarity=None if flags.knn_sim_func is None else str(flags.knn_sim_func),
        load_keys=not flags.no_load_keys,
        keys_in_memory=flags.move_dstore_to_mem,
        devices=devices,
    )
    if flags.move_dstore_to_mem and not retriever.reads_keys:
        logger.warning("TRIME: --move-dstore-to-mem has no effect: scores are Faiss's (--knn-sim-func)")
    place = f"GPU {', '.join(map(str, devices))}" if devices else "the CPU"
    logger.info(f"TRIME: external memory of {store.rows:,} keys, {index.metric} index on {place}")
    return retriever, store, index.metric


def _check_store(store: Datastore, model: Querying) -> None:
    name = store.prefix
    if store.dimension is not None and store.dimension != model.dimension:
        raise DatastoreError(
            f"the keys of {name} have dimension {store.dimension}, those of --path {model.dimension}: the "
            "datastore is another model's"
        )
    manifest = store.manifest
    if manifest is None:
        return
    if manifest.key_type != model.key_type:
        raise DatastoreError(
            f"the keys of {name} are {manifest.key_type}: pass --knn-keytype {manifest.key_type}"
        )
    if manifest.dictionary_hash != model.dictionary_hash:
        raise DatastoreError(
            f"the datastore {name} was made with another dictionary than DATA/dict.txt: its tokens would "
            "mean other words; preprocess its text with --srcdict DATA/dict.txt and write it again"
        )
    if manifest.checkpoint_hash is not None and manifest.checkpoint_hash != file_hash(model.checkpoint):
        logger.warning(
            f"TRIME: the datastore {name} was made with another checkpoint ({manifest.checkpoint}): fine "
            "only if their representations agree"
        )
