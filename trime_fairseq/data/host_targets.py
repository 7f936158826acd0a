"""Targets that stay on the CPU, so that a criterion need not ask the device about them."""

from typing import Any

import numpy as np
from fairseq.data import BaseWrapperDataset
from numpy.typing import NDArray
from torch import Tensor


def host_copy(target: Tensor) -> NDArray[np.int64]:
    """The targets as a NumPy array, which fairseq does not move to the device with the sample."""
    # A copy: a loader's worker moves the tensor to shared memory, where an array would not follow.
    return target.numpy().copy()


class HostTargets(BaseWrapperDataset):
    """A language-modelling dataset whose batches hold their targets a second time, as ``host_target``."""

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        sample: dict[str, Any] = super().collater(samples)
        if sample:
            sample["host_target"] = host_copy(sample["target"])
        return sample
