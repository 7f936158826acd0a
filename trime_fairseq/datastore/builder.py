"""Builds the index of a datastore whose keys are stored."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .datastore import Datastore, DatastoreError
from .float_keys import float_keys
from .index.config import IndexConfig, index_path
from .index.growing import GrowingIndex
from .index.manifest import IndexManifest
from .layout import values_path
from .progress import checksum_with_progress

logger = logging.getLogger(__name__)


def build_index(
    store: Datastore,
    config: IndexConfig,
    name: str,
    *,
    chunk: int = 1_000_000,
    starting_point: int = 0,
    probe: int = 8,
    use_gpu: bool = False,
    train_only: bool = False,
    save_every: float = 30.0,
) -> str:
    """Trains an index and adds all keys to it; goes on where a killed run stopped.

    Holds one chunk of keys in float32 (and, before, the keys for training) beside the index. What is there
    already is left as it is; an index of something else is replaced when the new one is done.

    Args:
        store: with keys.
        name: the index becomes NAME.METRIC, its manifest NAME.METRIC.json.
        chunk: number of keys to add at a time.
        starting_point: the first row to add; keys keep their row numbers.
        probe: number of lists searched by default.
        use_gpu: train and encode on GPUs.
        train_only: stop when the trained index NAME.METRIC.trained is there.
        save_every: see :class:`~.index.growing.GrowingIndex`.

    Returns:
        The file of the index (of the trained one with ``train_only``).

    Raises:
        DatastoreError: if the store has no keys or too few, keys hold NaN or infinity, the index cannot be
            made, cannot be written, or is built by another process.
    """
    keys = _keys(store, config)
    if not 0 <= starting_point < store.rows:
        raise DatastoreError(
            f"`starting_point` {starting_point:,} is not a row of {store.prefix}: it has {store.rows:,}"
        )
    config.check_rows(store.rows)
    manifest = IndexManifest.describe(
        config,
        store.manifest,
        datastore=store.fingerprint(),
        datastore_rows=store.rows,
        training="sample",
        chunk=chunk,
        starting_point=starting_point,
        values_checksum=_values_checksum(store),
    )
    path = index_path(name, config.metric)
    growing = GrowingIndex(
        path, manifest, config.new_index, probe=probe, use_gpu=use_gpu, save_every=save_every
    )
    try:
        if train_only:
            if not growing.is_trained():
                growing.train(_sample(keys, config))
            return f"{path}.trained"
        _build(growing, keys, config, chunk)
    finally:
        growing.close()
    return path


def _build(growing: GrowingIndex, keys: NDArray[Any], config: IndexConfig, chunk: int) -> None:
    rows = growing.manifest.rows
    if growing.stage == "complete":
        growing.finish()
        logger.info(f"TRIME: {growing.path} is there already, complete: {rows:,} keys")
        return
    growing.open()
    if growing.stage == "none":
        growing.train(_sample(keys, config))
    done = growing.next_row - growing.manifest.starting_point
    with tqdm(total=rows, initial=done, unit="keys", unit_scale=True, desc="adding") as bar:
        for begin in range(growing.next_row, len(keys), chunk):
            part = keys[begin : begin + chunk]
            growing.add(float_keys(part, config.metric, begin))
            bar.update(len(part))
    growing.finish()
    logger.info(f"TRIME: {growing.path} is complete: {rows:,} keys")


def _values_checksum(store: Datastore) -> str:
    noted = store.manifest.values_checksum if store.manifest is not None else None
    return noted or checksum_with_progress(values_path(store.prefix))


def _keys(store: Datastore, config: IndexConfig) -> NDArray[Any]:
    if store.manifest is not None and not store.manifest.complete:
        raise DatastoreError(
            f"the datastore {store.prefix} is not complete: run the command that writes it again"
        )
    if store.keys is None:
        raise DatastoreError(
            f"the keys of {store.prefix} are not stored: only StreamingIndex indexes keys as they come"
        )
    if store.keys.shape[1] != config.dimension:
        raise DatastoreError(
            f"{store.prefix} has keys of dimension {store.keys.shape[1]}, not {config.dimension}"
        )
    return store.keys


def _sample(keys: NDArray[Any], config: IndexConfig) -> NDArray[np.float32]:
    """Keys for training: float32 [min(N, config.training_keys), d], in the order of the rows."""
    count = min(len(keys), config.training_keys)
    rows = np.random.default_rng(config.seed).choice(len(keys), count, replace=False, shuffle=False)
    # Ascending rows are read from the disk in one pass.
    rows.sort()
    return float_keys(keys, config.metric, rows=rows)
