"""Batches of sentence pairs that leave none out.

fairseq's main branch throws the last batch of a subset away if its rows are no multiple of
``--required-batch-size-multiple``, which is 8 by default: up to 7 sentences, the longest of all, would not be
translated, trained on or stored.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset
from numpy.typing import NDArray

from .host_targets import host_copy


class SentenceBatches(BaseWrapperDataset):
    """Sentence pairs in batches of all of them.

    Args:
        dataset: fairseq's ``LanguagePairDataset``.
        group_size: empty batches fill the last group of so many batches, which are dealt out together;
            ``--grouped-shuffling`` would leave it out.
        for_memory: batches hold their targets a second time, as ``host_target``, and an empty batch is one
            row without a target: its rank takes part in all that the others do, and no loss, gradient or key
            comes of it. (fairseq would repeat another batch there, whose keys the others would see.)
    """

    def __init__(self, dataset: Any, group_size: int = 1, for_memory: bool = False) -> None:
        super().__init__(dataset)
        self.group_size = group_size
        self.for_memory = for_memory

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.for_memory:
            sample: dict[str, Any] = super().collater(samples)
            return sample
        sample = super().collater(samples or [self._placeholder()])
        if not samples:
            sample["ntokens"] = sample["nsentences"] = 0
        sample["host_target"] = host_copy(sample["target"])
        return sample

    def _placeholder(self) -> dict[str, Any]:
        # A row of nothing but padding would make attention divide by zero.
        source, target = self.dataset.src_dict, self.dataset.tgt_dict
        return {"id": -1, "source": torch.tensor([source.eos()]), "target": torch.tensor([target.pad()])}

    def batch_by_size(
        self,
        indices: Any,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[Any]:
        batches = whole_batches(
            self.dataset, np.asarray(indices), max_tokens, max_sentences, required_batch_size_multiple
        )
        return fill_last_group(batches, self.group_size)


def whole_batches(
    dataset: Any,
    order: NDArray[np.int64],
    max_tokens: int | None,
    max_sentences: int | None,
    multiple: int,
    always_join: bool = False,
) -> list[Any]:
    """fairseq's batches of sentences in this order, and those that it would leave out at the end.

    They join the last batch if that stays within its bounds, and are one more batch otherwise.

    Args:
        dataset: fairseq's; a batch is bounded by its number of sentences times the longest of them, the
            longer side of each.
        order: ids of sentences, int64 [N].
        max_tokens, max_sentences: the bounds, if any.
        multiple: a batch that is full is cut down to a multiple of so many sentences, or it has fewer; the
            rest begins the next one.
        always_join: also the last two batches that fairseq 0.12.2 makes of one, so that both releases give
            the batches of earlier ones, which cut full batches only.

    Raises:
        ValueError: if a sentence alone exceeds ``max_tokens``.
    """
    if not len(order):
        return []
    lengths = dataset.num_tokens_vec(order)
    if max_tokens and lengths.max() > max_tokens:
        raise ValueError(
            f"`max_tokens` {max_tokens:,} is less than the {lengths.max():,} tokens of sentence "
            f"{order[lengths.argmax()]:,}: raise it"
        )
    batches = list(dataset.batch_by_size(order, max_tokens, max_sentences, multiple))
    left_out = order[sum(map(len, batches)) :]
    if len(left_out):
        batches.append(left_out)
    if (always_join or len(left_out)) and len(batches) > 1 and dataset.get_batch_shapes() is None:
        joined = np.concatenate(batches[-2:])
        longest = int(dataset.num_tokens_vec(joined).max())
        if (not max_tokens or len(joined) * longest <= max_tokens) and (
            not max_sentences or len(joined) <= max_sentences
        ):
            batches[-2:] = [joined]
    return batches


def fill_last_group(batches: Sequence[Any], group_size: int) -> list[Any]:
    """The batches, with empty ones at the end that make their number a multiple of ``group_size``."""
    return [*batches, *[[]] * (-len(batches) % group_size)]


class KnownSentenceBatches:
    """Keeps one :class:`SentenceBatches` for each dataset, since fairseq looks iterators up by dataset."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, bool, int, bool], SentenceBatches] = {}

    def of(self, dataset: Any, trains: bool, group_size: int, for_memory: bool) -> SentenceBatches:
        """The dataset, wrapped once for each use of it."""
        key = (dataset, trains, group_size, for_memory)
        return self._known.setdefault(key, SentenceBatches(dataset, group_size, for_memory))
