"""Targets that stay on the CPU, so that a criterion need not ask the device about them."""

from typing import Any, Dict, List

from fairseq.data import BaseWrapperDataset


def with_host_target(sample: Dict[str, Any]) -> Dict[str, Any]:
    """A sample with its targets a second time, as ``host_target``: a NumPy array int64 [B, L], which fairseq
    does not move to the device."""
    if sample:
        # A copy: a loader's worker moves the tensor to shared memory, where an array would not follow.
        sample["host_target"] = sample["target"].numpy().copy()
    return sample


class HostTargets(BaseWrapperDataset):
    """A language-modelling dataset whose batches are :func:`with_host_target`."""

    def collater(self, samples: List[Dict[str, Any]]) -> Dict[str, Any]:
        return with_host_target(super().collater(samples))
