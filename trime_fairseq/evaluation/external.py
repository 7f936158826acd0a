"""Opens datastore and index as the flags of an evaluation ask, and refuses what does not fit the model."""

import logging
import os
from dataclasses import dataclass
from typing import Any

from ..datastore import Datastore, DatastoreError, open_datastore
from ..datastore.index.config import IndexSidecar, import_faiss
from ..datastore.retriever import Retriever, gpus_for_index, read_index
from ..files import file_hash

logger = logging.getLogger(__name__)


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
    for flag in ("dstore_filename", "indexfile"):
        if not getattr(flags, flag):
            raise DatastoreError(f"external memory needs --{flag.replace('_', '-')}")
    recomputes = flags.knn_sim_func not in (None, "do_not_recomp_l2")
    store = open_datastore(
        flags.dstore_filename,
        rows=flags.dstore_size,
        fp16=flags.dstore_fp16,
        need_keys=flags.check_recall > 0 or (recomputes and not flags.no_load_keys),
    )
    _check_store(store, model)
    sidecar = IndexSidecar.read(flags.indexfile)
    if not os.path.exists(flags.indexfile) and os.path.exists(flags.indexfile + ".partial"):
        raise DatastoreError(
            f"--indexfile {flags.indexfile} is not complete: run trime-build-index again, it will continue"
        )
    index = read_index(flags.indexfile)
    metric = _metric(index, sidecar, flags)
    _check_index(index, sidecar, store, model, flags.indexfile)
    searched = store
    if flags.no_load_keys:
        searched = Datastore(store.prefix, store.values, None, store.dimension, store.manifest)
    devices = gpus_for_index() if use_gpu and not flags.use_faiss_cpu else ()
    if use_gpu and not devices and not flags.use_faiss_cpu:
        logger.warning("TRIME: this Faiss knows no GPU; searching on the CPU (--use-faiss-cpu says so)")
    retriever = Retriever(
        index,
        searched,
        metric=metric,
        k=flags.k,
        probe=flags.probe,
        similarity=None if flags.knn_sim_func is None else str(flags.knn_sim_func),
        keys_in_memory=flags.move_dstore_to_mem,
        devices=devices,
    )
    if flags.move_dstore_to_mem and not retriever.reads_keys:
        logger.warning("TRIME: --move-dstore-to-mem has no effect: scores are Faiss's (--knn-sim-func)")
    place = f"GPU {', '.join(map(str, devices))}" if devices else "the CPU"
    logger.info(f"TRIME: external memory of {store.rows:,} keys, {metric} index on {place}")
    return retriever, store, metric


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


def _metric(index: Any, sidecar: IndexSidecar | None, flags: Any) -> str:
    faiss = import_faiss()
    asked = None if flags.faiss_metric_type is None else str(flags.faiss_metric_type)
    if index.metric_type not in (faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT):
        raise DatastoreError(f"--indexfile {flags.indexfile} is neither for inner product nor for L2")
    if sidecar is not None:
        found = sidecar.metric
    elif index.metric_type == faiss.METRIC_L2:
        found = "l2"
    else:
        # Normalised keys or not, Faiss searches inner products; without a sidecar only the name may tell.
        found = "cos" if asked == "cos" or flags.indexfile.endswith(".cos") else "ip"
    if asked not in (None, found):
        raise DatastoreError(
            f"--faiss-metric-type {asked}: the index {flags.indexfile} was built for {found}; pass that"
        )
    return found


def _check_index(
    index: Any, sidecar: IndexSidecar | None, store: Datastore, model: Querying, path: str
) -> None:
    if index.d != model.dimension:
        raise DatastoreError(
            f"--indexfile {path} has dimension {index.d}, the keys of --path {model.dimension}: it is "
            "another model's"
        )
    first = 0 if sidecar is None else sidecar.starting_point
    if index.ntotal + first != store.rows:
        raise DatastoreError(
            f"--indexfile {path} holds {index.ntotal:,} keys, the datastore {store.prefix} {store.rows:,}: "
            "they do not belong together, or the index is not complete; build it again with trime-build-index"
        )
    if sidecar is not None and sidecar.datastore != store.fingerprint():
        raise DatastoreError(
            f"--indexfile {path} was built from another datastore than {store.prefix}: build it again with "
            "trime-build-index"
        )
