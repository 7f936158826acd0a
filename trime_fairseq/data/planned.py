"""Which device sees which batch at which step, when batches follow an order of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from fairseq.data import FairseqDataset
from numpy.typing import NDArray
from torch import Tensor

from .host_targets import host_copy
from .text_order import contiguous_shard


@dataclass(frozen=True)
class BatchLayout:
    """Where the tokens of a batch are among those of its group at a step; plain numbers on the CPU.

    Attributes:
        lengths: tokens of each row, without padding.
        counts: tokens of the batch of each device of the group.
        member: which of the group's batches this is.
        number: which of the epoch's batches this is.
    """

    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    member: int
    number: int

    @property
    def before(self) -> int:
        """Tokens of the group's batches before this one."""
        return sum(self.counts[: self.member])

    @property
    def total(self) -> int:
        """Tokens of all batches of the group."""
        return sum(self.counts)


class TrainingSample(TypedDict, total=False):
    """A training batch as criterions get it.

    Attributes:
        id: of each row's segment, int64 [B].
        net_input: arguments of the model.
        target: int64 [B, L], padding at the end of rows.
        ntokens, nsentences: tokens without padding, and rows that are no padding.
        host_target: ``target`` on the CPU (:mod:`trime_fairseq.data.host_targets`); of our task only.
        layout: of planned batches only.
    """

    id: Tensor
    net_input: dict[str, Any]
    target: Tensor
    ntokens: int
    nsentences: int
    host_target: NDArray[np.int64]
    layout: BatchLayout


def deal_out(batches: Sequence[list[int]], world_size: int, group_size: int) -> list[list[int]]:
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
    idle: list[list[int]] = [[]] * group_size
    return [
        batch
        for step in range(len(runs[0]))
        for run in runs
        for batch in (run[step] if step < len(run) else idle)
    ]


class PlannedBatches(FairseqDataset):
    """A dataset whose items are whole batches, dealt out to devices in advance.

    A sample is a :class:`TrainingSample`: what fairseq's collater gives, with ``host_target`` and
    ``layout``.

    An empty batch is one row without a target: its rank takes part in all that the others do, and no loss,
    gradient or key comes of it. (fairseq would repeat another batch there, whose keys the others would see.)

    Args:
        dataset: fairseq's ``MonolingualDataset``.
        dealt: from :func:`deal_out`.
        group_size: as given there.
        begins_with_bos: rows are one token longer than ``dataset.sizes`` says (``--add-bos-token``).
    """

    def __init__(
        self,
        dataset: Any,
        dealt: list[list[int]],
        group_size: int,
        begins_with_bos: bool = False,
    ) -> None:
        self.dataset = dataset
        self.dealt = dealt
        self.group_size = group_size
        self.counts = [sum(int(dataset.sizes[i]) + begins_with_bos for i in batch) for batch in dealt]

    def __len__(self) -> int:
        return len(self.dealt)

    def __getitem__(self, number: int) -> TrainingSample:
        items = [self.dataset[i] for i in self.dealt[number]]
        sample: TrainingSample = self.dataset.collater(items or [self._placeholder()])
        if not items:
            sample["ntokens"] = sample["nsentences"] = 0
        member = number % self.group_size
        first = number - member
        lengths = [len(item["source"]) for item in items]
        # --pad-to-fixed-bsz adds rows of padding.
        lengths += [0] * (len(sample["target"]) - len(lengths))
        counts = tuple(self.counts[first : first + self.group_size])
        sample["layout"] = BatchLayout(tuple(lengths), counts, member, number)
        sample["host_target"] = host_copy(sample["target"])
        return sample

    def collater(self, samples: list[TrainingSample]) -> TrainingSample:
        """The only item of an iterator's batch."""
        (sample,) = samples
        return sample

    def set_epoch(self, epoch: int) -> None:
        self.dataset.set_epoch(epoch)

    @property
    def supports_prefetch(self) -> bool:
        return False

    def _placeholder(self) -> dict[str, Any]:
        # A row of nothing but padding would make attention divide by zero.
        vocab = self.dataset.vocab
        return {"id": -1, "source": torch.tensor([vocab.eos()]), "target": torch.tensor([vocab.pad()])}
