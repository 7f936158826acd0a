"""Which device sees which batch at which step, when batches follow an order of their own."""

from typing import Any, Dict, List, Sequence

import torch
from fairseq.data import FairseqDataset

from .host_targets import with_host_target
from .text_order import contiguous_shard


def deal_out(batches: Sequence[List[int]], world_size: int, group_size: int) -> List[List[int]]:
    """Batches in the order in which fairseq deals them out: entry k goes to rank k % world_size at step
    k // world_size.

    A group of ``group_size`` ranks takes as many consecutive batches in a step, consecutive batches on
    consecutive ranks; each of the world_size / group_size groups goes through a contiguous run of the
    text. Where a run is shorter, or a step incomplete, entries are empty batches.

    Example: batches a to i on 4 ranks in groups of 2. The steps [a b] [c d] [e f] [g h] [i -] are cut
    into the runs a to f and g to i::

        step 0:  a b  g h
        step 1:  c d  i -
        step 2:  e f  - -

    Raises:
        ValueError: if the groups do not divide the world.
    """
    if world_size % group_size:
        raise ValueError(f"groups of {group_size} devices do not divide {world_size} devices")
    steps = [list(batches[first : first + group_size]) for first in range(0, len(batches), group_size)]
    if steps:
        steps[-1] += [[]] * (group_size - len(steps[-1]))
    groups = world_size // group_size
    runs = [contiguous_shard(steps, groups, group) for group in range(groups)]
    idle: List[List[int]] = [[]] * group_size
    return [
        batch
        for step in range(len(runs[0]))
        for run in runs
        for batch in (run[step] if step < len(run) else idle)
    ]


class PlannedBatches(FairseqDataset):
    """A dataset whose items are the batches of a plan, each with its place among those of its group.

    Beside what fairseq's collater gives, a sample holds ``host_target``
    (:mod:`trime_fairseq.data.host_targets`) and ``layout``, plain numbers on the CPU: ``lengths``,
    the tokens of each row; ``counts``, the tokens of each batch of the group at this step; ``place``, that
    of this batch among them; ``number``, its own in the plan. An empty batch is one row without a target:
    its rank takes part in all that the others do, and no loss, gradient or key comes of it. (fairseq would
    repeat another batch there, whose keys would then be seen by the others.)

    Args:
        dataset: fairseq's ``MonolingualDataset``.
        dealt: from :func:`deal_out`.
        group_size: as given there.
        begins_with_bos: rows are one token longer than ``dataset.sizes`` says (``--add-bos-token``).
    """

    def __init__(
        self,
        dataset: Any,
        dealt: List[List[int]],
        group_size: int,
        begins_with_bos: bool = False,
    ) -> None:
        self.dataset = dataset
        self.dealt = dealt
        self.group_size = group_size
        self.counts = [sum(int(dataset.sizes[i]) + begins_with_bos for i in batch) for batch in dealt]

    def __len__(self) -> int:
        return len(self.dealt)

    def __getitem__(self, number: int) -> Dict[str, Any]:
        items = [self.dataset[i] for i in self.dealt[number]]
        sample: Dict[str, Any] = self.dataset.collater(items or [self._placeholder()])
        if not items:
            sample.update(ntokens=0, nsentences=0)
        first = number - number % self.group_size
        with_host_target(sample)
        sample["layout"] = {
            "lengths": tuple(len(item["source"]) for item in items) or (0,),
            "counts": tuple(self.counts[first : first + self.group_size]),
            "place": number % self.group_size,
            "number": number,
        }
        return sample

    def collater(self, samples: List[Dict[str, Any]]) -> Dict[str, Any]:
        """The only item of an iterator's batch."""
        (sample,) = samples
        return sample

    def set_epoch(self, epoch: int) -> None:
        self.dataset.set_epoch(epoch)

    @property
    def supports_prefetch(self) -> bool:
        return False

    def _placeholder(self) -> Dict[str, Any]:
        # A row of nothing but padding would make attention divide by zero.
        vocab = self.dataset.vocab
        return {"id": -1, "source": torch.tensor([vocab.eos()]), "target": torch.tensor([vocab.pad()])}
