"""What the criterions share whose memory reaches beyond a token's own segment."""

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data.order import TrainingOrder
from ..data.planned import BatchLayout, TrainingSample
from ..memory import Visibility, start_gather
from .base import PendingMemory, TrainingTask, TrimeCriterion, TrimeCriterionConfig


@dataclass
class SharedMemoryConfig(TrimeCriterionConfig):
    gather_grad: bool = field(
        default=False,
        metadata={
            "help": "keys gathered from other devices pass the gradient on to them; the published code does "
            "not, and so trains differently on other numbers of devices"
        },
    )


class SharedMemoryCriterion(TrimeCriterion):
    """Base of the criterions with a memory of several segments, here or on other devices.

    Keys are the tokens of a group of devices, without padding, in the order of devices. A subclass says
    which of them a token sees (:meth:`visibility`) and which devices are a group (:meth:`group_size`).
    ``name`` is the registered name, for messages.

    Raises:
        ValueError: for another task, or an order of batches that does not suit the memory.
    """

    name: str

    def __init__(self, cfg: SharedMemoryConfig, task: TrainingTask) -> None:
        super().__init__(cfg, task)
        order = getattr(task, "order", None)
        if not isinstance(order, TrainingOrder):
            raise ValueError(
                f"--criterion {self.name} needs to know the batches of all devices: "
                "use --task trime_language_modeling"
            )
        self.gather_grad = cfg.gather_grad
        self.devices_per_memory = self.group_size(order)

    @abstractmethod
    def group_size(self, order: TrainingOrder) -> int:
        """Number of consecutive devices that share a memory; refuses orders that do not suit it."""

    @abstractmethod
    def visibility(self, layout: BatchLayout, width: int) -> Visibility:
        """What each position of the batch sees of the group's keys.

        Args:
            layout: where the batch's tokens are among those keys.
            width: L, positions of a row, padding included.
        """

    def memory(self, representation: Tensor, target: Tensor, sample: TrainingSample) -> PendingMemory:
        layout, (rows, width) = sample["layout"], target.shape
        if sum(layout.lengths) == rows * width:
            keys, tokens = representation.flatten(0, 1), target.flatten()
        else:
            keys = torch.cat([row[:length] for row, length in zip(representation, layout.lengths)])
            tokens = torch.cat([row[:length] for row, length in zip(target, layout.lengths)])
        gather = start_gather(keys, tokens, layout.counts, layout.member, self.gather_grad)
        return PendingMemory(gather, self.visibility(layout, width))
