"""Opens datastore and index as the flags of an evaluation ask, and refuses what does not fit the model."""

import logging
from dataclasses import dataclass
from typing import Protocol

from ..datastore import (
    Datastore,
    DatastoreError,
    Retriever,
    check_keys,
    gpus_for_index,
    open_datastore,
    open_index,
)
from ..files import file_hash
from .datastore_config import flags_named

logger = logging.getLogger(__name__)


# Retriever, datastore and metric.
External = tuple[Retriever, Datastore, str]


@dataclass(frozen=True)
class KeySource:
    """The model whose keys are searched.

    Attributes:
        dimension, key_type: of its keys.
        dictionary_hash: of the dictionary of its tokens.
        checkpoint: its file.
        vocabulary: number of symbols in the dictionary.
        dictionary: how messages name the dictionary's file.
        dictionary_flag: the flag of ``fairseq-preprocess`` that takes it.
        chooses_key_type: whether the command has ``--knn-keytype``.
    """

    dimension: int
    key_type: str
    dictionary_hash: str
    checkpoint: str | None
    vocabulary: int | None = None
    dictionary: str = "DATA/dict.txt"
    dictionary_flag: str = "--srcdict"
    chooses_key_type: bool = True


class SearchConfig(Protocol):
    """The flags of a search: fields of a task's config."""

    dstore_filename: str | None
    indexfile: str | None
    dstore_size: int | None
    dstore_fp16: bool
    k: int
    probe: int | None
    knn_sim_func: str | None
    faiss_metric_type: str | None
    no_load_keys: bool
    move_dstore_to_mem: bool
    use_faiss_cpu: bool
    check_recall: int


def open_external(config: SearchConfig, model: KeySource, use_gpu: bool) -> External:
    """Opens the external memory: its retriever, its datastore and the metric.

    Args:
        config: names datastore and index, and how to search them.
        model: what the datastore must fit.
        use_gpu: whether the model runs on a GPU.

    Raises:
        DatastoreError: naming the file or flag and the fix.
    """
    if not config.dstore_filename:
        raise DatastoreError("external memory needs --dstore-filename")
    if not config.indexfile:
        raise DatastoreError("external memory needs --indexfile")
    with flags_named():
        return _open(config, config.dstore_filename, config.indexfile, model, use_gpu)


def _open(config: SearchConfig, prefix: str, indexfile: str, model: KeySource, use_gpu: bool) -> External:
    recomputes = config.knn_sim_func not in (None, "do_not_recomp_l2")
    store = open_datastore(
        prefix,
        rows=config.dstore_size,
        fp16=config.dstore_fp16,
        need_keys=config.check_recall > 0 or (recomputes and not config.no_load_keys),
        likely_dimension=model.dimension,
    )
    _check_store(store, model)
    index = open_index(indexfile, metric=config.faiss_metric_type)
    index.check(store, model.dimension)
    devices = gpus_for_index() if use_gpu and not config.use_faiss_cpu else ()
    if use_gpu and not devices and not config.use_faiss_cpu:
        logger.warning("TRIME: this Faiss knows no GPU; searching on the CPU (--use-faiss-cpu says so)")
    retriever = Retriever(
        index,
        store,
        k=config.k,
        probe=config.probe,
        similarity=config.knn_sim_func,
        load_keys=not config.no_load_keys,
        keys_in_memory=config.move_dstore_to_mem,
        devices=devices,
        vocabulary=model.vocabulary,
    )
    if not (retriever.reads_keys or config.no_load_keys):
        # The scores are Faiss's. Keys of another text say that tokens and index do not belong together.
        check_keys(index, store)
    if config.move_dstore_to_mem and not retriever.reads_keys:
        logger.warning("TRIME: --move-dstore-to-mem has no effect: scores are Faiss's (--knn-sim-func)")
    where = f"GPU {', '.join(map(str, devices))}" if devices else "the CPU"
    logger.info(f"TRIME: external memory of {store.rows:,} keys, {index.metric} index on {where}")
    return retriever, store, index.metric


def _check_store(store: Datastore, model: KeySource) -> None:
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
        kind = manifest.key_type
        fix = f"pass --knn-keytype {kind}" if model.chooses_key_type else f"a search needs {model.key_type}"
        raise DatastoreError(f"the keys of {name} are {kind}: {fix}")
    if manifest.dictionary_hash not in (None, model.dictionary_hash):
        raise DatastoreError(
            f"the datastore {name} was made with another dictionary than {model.dictionary}: its tokens "
            f"would mean other words; preprocess its text with {model.dictionary_flag} {model.dictionary} "
            "and write it again"
        )
    if manifest.checkpoint_hash is not None and manifest.checkpoint_hash != file_hash(model.checkpoint):
        logger.warning(
            f"TRIME: the datastore {name} was made with another checkpoint ({manifest.checkpoint}): fine "
            "only if their representations agree"
        )
