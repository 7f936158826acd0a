"""The order of training batches: what the flags ask for, and an iterator that follows it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from fairseq.data import data_utils, iterators
from numpy.typing import NDArray

from .planned import PlannedBatches, deal_out
from .predefined import check_description, check_one_folder, read_predefined
from .provenance import text_files_hash
from .text_order import consecutive_batches

# Under this name the state of the iterator holds the hash of predefined batches.
_LIST_HASH = "trime_list_hash"


@dataclass(frozen=True)
class TrainingOrder:
    """The order of training batches that the flags of the same names ask for.

    Attributes:
        keep_order: batches in text order, or that of the file.
        shuffle_steps: the steps of ``keep_order`` in random order.
        train_mem_size: tokens of consecutive segments that are one memory, spread over a group of devices.
        predefined_batches: file with the order of segments.
        tokens_per_sample, sample_break_mode: how the text is cut into segments.
        max_tokens, batch_size: bounds of a batch of one device; one of them is set.
        world_size: number of devices.
    """

    keep_order: bool
    shuffle_steps: bool
    train_mem_size: int
    predefined_batches: str | None
    tokens_per_sample: int
    sample_break_mode: str
    max_tokens: int | None
    batch_size: int | None
    world_size: int

    @classmethod
    def from_config(cls, config: Any) -> "TrainingOrder":
        """Reads the fields of an ``OrderConfig`` and of fairseq's ``LanguageModelingConfig``."""
        names = [name for name in cls.__dataclass_fields__ if name != "world_size"]
        values = {name: getattr(config, name) for name in names}
        values["sample_break_mode"] = str(values["sample_break_mode"])
        return cls(**values, world_size=config.distributed_world_size)

    @property
    def is_own(self) -> bool:
        """True if this task, not fairseq, orders the batches."""
        return self.keep_order or bool(self.predefined_batches)

    @property
    def moves_steps(self) -> bool:
        """True if the batches of a step move together to another step in every epoch."""
        return self.shuffle_steps or not self.keep_order

    @property
    def tokens_per_device(self) -> int:
        """Tokens of a full batch."""
        by_rows = self.batch_size * self.tokens_per_sample if self.batch_size else None
        return min(bound for bound in (self.max_tokens, by_rows) if bound)

    @property
    def devices_per_memory(self) -> int:
        """C, the number of devices that consecutive batches go to: as many as ``train_mem_size`` tokens are
        spread over; all for predefined batches, whose neighbours are similar."""
        if self.predefined_batches:
            return self.world_size
        return self.train_mem_size // self.tokens_per_device if self.train_mem_size else 1

    @property
    def segments_per_device(self) -> int | None:
        """Segments of a full batch; None where segments are lines, of any length."""
        if self.sample_break_mode == "eos":
            return None
        return self.tokens_per_device // self.tokens_per_sample

    def segments(self, dataset: Any, seed: int) -> NDArray[np.int64]:
        """The ids of the training segments in the order of batches; shuffled unless a flag says otherwise.

        Raises:
            ValueError: for a file of predefined batches that does not fit the data.
        """
        if self.predefined_batches:
            return read_predefined(self.predefined_batches, len(dataset), self.tokens_per_sample)
        if self.keep_order:
            return np.arange(len(dataset))
        with data_utils.numpy_seed(seed):
            order: NDArray[np.int64] = dataset.ordered_indices()
        return order

    def check(self, data: str, subset: str) -> None:
        """Raises ValueError, naming the flag and the fix, if the flags contradict each other or the file of
        predefined batches is of other data.

        Args:
            data: the DATA argument, which may name several folders.
            subset: the training subset.
        """
        in_blocks = self.sample_break_mode != "eos"
        if in_blocks and self.max_tokens and self.max_tokens < self.tokens_per_sample:
            raise ValueError(
                f"--max-tokens {self.max_tokens} holds no segment of --tokens-per-sample "
                f"{self.tokens_per_sample}: fairseq would leave all of them out"
            )
        if self.shuffle_steps and (self.predefined_batches or not self.keep_order):
            raise ValueError(
                "--shuffle-steps moves the steps of --keep-order: pass that as well, without "
                "--predefined-batches (whose steps move unless --keep-order is given)"
            )
        if self.predefined_batches == "":
            raise ValueError(
                "--predefined-batches is empty: an unset variable? Name the list, or leave it out"
            )
        if self.predefined_batches:
            check_one_folder(data)
            check_description(
                self.predefined_batches,
                tokens_per_sample=self.tokens_per_sample,
                sample_break_mode=self.sample_break_mode,
                data_hash=lambda: text_files_hash(data, subset),
            )
        if not self.train_mem_size:
            return
        memory = f"--train-mem-size {self.train_mem_size}"
        if not self.keep_order or self.predefined_batches:
            raise ValueError(
                f"{memory} is a memory of consecutive segments: pass --keep-order, without "
                "--predefined-batches"
            )
        tokens = self.tokens_per_device
        if self.train_mem_size < 0 or self.train_mem_size % tokens:
            raise ValueError(f"{memory} is not a multiple of the {tokens} tokens of a device (--max-tokens)")
        if in_blocks and tokens % self.tokens_per_sample:
            raise ValueError(
                f"{memory}: the {tokens} tokens of a device (--max-tokens) are not a multiple of "
                f"--tokens-per-sample {self.tokens_per_sample}, so the memory would be smaller"
            )
        devices = self.devices_per_memory
        if self.world_size % devices:
            raise ValueError(
                f"{memory} takes groups of {devices} devices with --max-tokens {tokens}, which do not divide "
                f"{self.world_size} devices: change --max-tokens or --distributed-world-size"
            )


class PlannedIterator(iterators.EpochBatchIterator):
    """fairseq's iterator, which refuses to continue with another list of segments.

    Args:
        list_hash: of the predefined batches, see :func:`trime_fairseq.bm25.batches.order_hash`; None without.
    """

    def __init__(self, *args: Any, list_hash: str | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.list_hash = list_hash

    def state_dict(self) -> dict[str, Any]:
        """What fairseq writes into checkpoints: the position, and the hash of the list."""
        state: dict[str, Any] = super().state_dict()
        return state if self.list_hash is None else {**state, _LIST_HASH: self.list_hash}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a saved state. Raises ValueError if that is the state of another list."""
        # Checkpoints of earlier versions do not say.
        if state_dict.get(_LIST_HASH, self.list_hash) != self.list_hash:
            what = "is another list than the one" if self.list_hash else "is missing: there is a list"
            raise ValueError(
                f"--predefined-batches {what} that this training has followed so far: pass that one, or "
                "--reset-dataloader, which begins with the first epoch again"
            )
        super().load_state_dict(state_dict)


def planned_iterator(
    dataset: Any,
    order: NDArray[np.int64],
    group_size: int,
    *,
    shuffle: bool,
    begins_with_bos: bool = False,
    max_tokens: int | None = None,
    max_sentences: int | None = None,
    num_shards: int = 1,
    shard_id: int = 0,
    data_buffer_size: int = 0,
    **options: Any,
) -> PlannedIterator:
    """fairseq's iterator over batches of consecutive segments of ``order``.

    Batches are as large as ``max_tokens`` and ``max_sentences`` allow, whatever
    --required-batch-size-multiple says: the size of the memory depends on it.

    Args:
        dataset: fairseq's ``MonolingualDataset``.
        order: ids of segments.
        group_size: devices that share a memory; see :func:`trime_fairseq.data.planned.deal_out`.
        shuffle: between epochs the batches of a step, all devices', move together to another step.
        options: of :class:`PlannedIterator`: list_hash, seed, num_workers, epoch, skip_remainder_batch.
    """
    lengths = np.asarray(dataset.sizes)[order]
    unbounded = int(lengths.max(initial=1)) * max(len(lengths), 1)
    rows = consecutive_batches(lengths.tolist(), max_tokens or unbounded, max_sentences)
    batches = [[int(order[row]) for row in batch] for batch in rows]
    dealt = deal_out(batches, num_shards, group_size)
    planned = PlannedBatches(dataset, dealt, group_size, begins_with_bos)
    return PlannedIterator(
        dataset=planned,
        collate_fn=planned.collater,
        batch_sampler=[[number] for number in range(len(planned))],
        num_shards=num_shards,
        shard_id=shard_id,
        buffer_size=data_buffer_size,
        disable_shuffling=not shuffle,
        grouped_shuffling=True,
        **options,
    )
