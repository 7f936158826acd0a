"""The batches that the task plans itself, with the arguments that fairseq passes."""

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bm25.batches import order_hash
from ..data.order import PlannedIterator, TrainingOrder, planned_iterator

logger = logging.getLogger(__name__)


def planned_batches(
    dataset: Any,
    training_order: TrainingOrder,
    devices_per_memory: int,
    trains: bool,
    keep_short_enough: Callable[..., NDArray[np.int64]],
    max_tokens: int | None = None,
    max_sentences: int | None = None,
    max_positions: Any = None,
    ignore_invalid_inputs: bool = False,
    required_batch_size_multiple: int = 1,
    seed: int = 1,
    num_shards: int = 1,
    shard_id: int = 0,
    num_workers: int = 0,
    epoch: int = 1,
    data_buffer_size: int = 0,
    skip_remainder_batch: bool = False,
    *,
    begins_with_bos: bool = False,
    **unused: Any,
) -> PlannedIterator:
    """fairseq's iterator over batches in the order of the training, or in text order for validation.

    Args:
        dataset: fairseq's.
        training_order: what the flags ask for.
        devices_per_memory: as in the training; where there are fewer processes, memories are smaller.
        trains: whether the batches are those of the training.
        keep_short_enough: the task's ``filter_indices_by_size``.
        begins_with_bos: rows are one token longer than fairseq says.

    All other arguments are those of fairseq's ``get_batch_iterator``, in its order.

    Raises:
        ValueError: for a file of predefined batches that does not fit the data.
    """
    order = training_order.segments(dataset, seed) if trains else np.arange(len(dataset))
    list_hash = order_hash(order) if trains and training_order.predefined_batches else None
    if max_positions is not None:
        order = keep_short_enough(order, dataset, max_positions, ignore_invalid_inputs)
    group_size = math.gcd(devices_per_memory, num_shards)
    if group_size < devices_per_memory:
        # fairseq-validate, by default: one process for what several have trained.
        logger.warning(
            f"TRIME: the memory is that of {group_size} devices, not of {devices_per_memory}: raise "
            f"--max-tokens {devices_per_memory // group_size} times for the same memory"
        )
    logger.info(
        f"TRIME: {len(order):,} segments in {'training' if trains else 'validation'} order, "
        f"memory of {group_size} of {num_shards} devices"
    )
    return planned_iterator(
        dataset,
        order,
        group_size,
        shuffle=trains and training_order.moves_steps,
        list_hash=list_hash,
        begins_with_bos=begins_with_bos,
        max_tokens=max_tokens,
        max_sentences=max_sentences,
        seed=seed,
        num_shards=num_shards,
        shard_id=shard_id,
        num_workers=num_workers,
        epoch=epoch,
        data_buffer_size=data_buffer_size,
        skip_remainder_batch=skip_remainder_batch,
    )
