"""Targets that stay on the CPU, so that a criterion need not ask the device about them; batches of all
samples."""

import logging
from typing import Any

import numpy as np
from fairseq.data import BaseWrapperDataset
from numpy.typing import NDArray
from torch import Tensor

logger = logging.getLogger(__name__)


def host_copy(target: Tensor) -> NDArray[np.int64]:
    """The targets as a NumPy array, which fairseq does not move to the device with the sample."""
    # A copy: a loader's worker moves the tensor to shared memory, where an array would not follow.
    return target.numpy().copy()


class HostTargets(BaseWrapperDataset):
    """A language-modelling dataset whose batches hold their targets a second time, as ``host_target``.

    fairseq throws its last batch away if the rows are no multiple of ``--required-batch-size-multiple``,
    which is 8 by default: a loss of validation would be of less than the text.

    Args:
        dataset: fairseq's.
        whole: batches of all samples. Otherwise a warning says how many are left out, as in stock, unless
            there would be no batch.
    """

    def __init__(self, dataset: Any, whole: bool = False) -> None:
        super().__init__(dataset)
        self.whole = whole

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        sample: dict[str, Any] = super().collater(samples)
        if sample:
            sample["host_target"] = host_copy(sample["target"])
        return sample

    def batch_by_size(
        self,
        indices: Any,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[Any]:
        if not len(indices):
            return []
        batches = list(
            super().batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple)
        )
        left_out = indices[sum(map(len, batches)) :]
        if len(left_out) and (self.whole or not batches):
            # It was within the bounds of a batch before fairseq cut it.
            batches.append(np.asarray(left_out))
        elif len(left_out):
            tokens = int(np.asarray(self.sizes)[left_out].astype(np.int64).sum())
            logger.warning(
                f"TRIME: {len(left_out):,} of {len(indices):,} training segments ({tokens:,} tokens) are "
                "left out of every epoch, because the last batch is no multiple of "
                f"--required-batch-size-multiple {required_batch_size_multiple}: pass 1 to train on all"
            )
        return batches


class KnownHostTargets:
    """Keeps one :class:`HostTargets` for each dataset, since fairseq looks iterators up by dataset."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, bool], HostTargets] = {}

    def of(self, dataset: Any, trains: bool, keep: bool) -> HostTargets:
        """The wrapper of a dataset. Unless it is that of the training, its batches hold all samples.

        Args:
            keep: return the same wrapper next time. False where fairseq keeps no iterator, to free the data.
        """
        wrapped = self._known.get((dataset, trains)) or HostTargets(dataset, whole=not trains)
        if keep:
            self._known[dataset, trains] = wrapped
        return wrapped
