"""``--predefined-batches`` of a translation: an order of all training sentences, from which batches are taken
in slices."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bm25.batches import BatchesInfo, order_hash, read_order
from .order import PlannedIterator
from .pair_files import PairFiles
from .predefined import check_one_folder
from .sentence_batches import SentenceBatches, fill_last_group, whole_batches


@dataclass(frozen=True)
class SentenceOrder:
    """The order of a file.

    Attributes:
        path: the file: a JSON list that holds the id of each training sentence once.
    """

    path: str

    @property
    def flag(self) -> str:
        """How messages begin."""
        return f"--predefined-batches {self.path}"

    def check(self, data: str, files: PairFiles) -> None:
        """Raises ValueError, naming the flag and the fix, for a list that is not of these data.

        ``trime-bm25 batches`` writes a description beside its lists; lists of others have none.

        Args:
            data: the DATA argument, which may name several folders.
            files: of the training subset.
        """
        if not self.path:
            raise ValueError(
                "--predefined-batches is empty: an unset variable? Name the list, or leave it out"
            )
        check_one_folder(data)
        info = BatchesInfo.read(self.path)
        if info is None:
            return
        if info.tokens_per_sample is not None:
            raise ValueError(
                f"{self.flag} is of the segments of a language model (--tokens-per-sample "
                f"{info.tokens_per_sample}), not of sentences: make the file again from these data"
            )
        if info.data_hash is not None and info.data_hash != files.target_hash():
            raise ValueError(
                f"{self.flag} was made from other target sentences than {files.side(files.target)}: export "
                "the sentences of these data and make the file again"
            )

    def sentences(self, count: int) -> NDArray[np.int64]:
        """The ids in order, int64 [count].

        Raises:
            ValueError: with the flag, the file and the fix, if the file is anything else.
        """
        others = f"but the training data has {count:,}: make the file again from these data"
        return read_order(self.path, self.flag, count, others, unit="sentence")


def sentence_iterator(
    dataset: SentenceBatches,
    order: SentenceOrder,
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
    **unused: Any,
) -> PlannedIterator:
    """fairseq's iterator over training batches that are consecutive slices of an order.

    Every epoch, groups of ``num_shards`` consecutive batches move to other steps as a whole. A rank takes
    every ``num_shards``-th batch, so the ranks of a step have neighbours. Empty batches fill the last group.
    Sentences that are too long for the model are left out of the order, with fairseq's own warning.

    Args:
        dataset: the training sentences.
        order: of the file.
        keep_short_enough: the task's ``filter_indices_by_size``.

    All other arguments are those of fairseq's ``get_batch_iterator``, in its order.

    Raises:
        ValueError: for a file that does not fit the data, and if all sentences are too long.
    """
    sentences = order.sentences(len(dataset))
    list_hash = order_hash(sentences)
    if max_positions is not None:
        sentences = keep_short_enough(sentences, dataset, max_positions, ignore_invalid_inputs)
    if not len(sentences):
        raise ValueError(
            f"all {len(dataset):,} training sentences are longer than {max_positions}: raise --max-tokens, "
            "--max-source-positions and --max-target-positions"
        )
    batches = whole_batches(
        *(dataset.dataset, sentences, max_tokens, max_sentences, required_batch_size_multiple),
        always_join=True,
    )
    return PlannedIterator(
        dataset=dataset,
        collate_fn=dataset.collater,
        batch_sampler=[list(map(int, batch)) for batch in fill_last_group(batches, num_shards)],
        list_hash=list_hash,
        seed=seed,
        num_shards=num_shards,
        shard_id=shard_id,
        num_workers=num_workers,
        epoch=epoch,
        buffer_size=data_buffer_size,
        skip_remainder_batch=skip_remainder_batch,
        grouped_shuffling=True,
    )
