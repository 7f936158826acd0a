"""What the criterions share whose memory reaches beyond a token's own segment."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, NamedTuple, Tuple

import torch
from torch import Tensor

from ..data.order import TrainingOrder
from ..memory import Visibility, start_gather
from .base import Memory, TrimeCriterion, TrimeCriterionConfig


@dataclass
class SharedMemoryConfig(TrimeCriterionConfig):
    gather_grad: bool = field(
        default=False,
        metadata={
            "help": "keys gathered from other devices pass the gradient on to them; the published code does "
            "not, and so trains differently on other numbers of devices"
        },
    )


class Layout(NamedTuple):
    """Where the tokens of a padded batch stand among the keys of all devices of its group.

    Attributes:
        width: L, positions of a row, padding included.
        lengths: tokens of each row.
        before: keys of the devices before this one.
        total: keys of all devices of the group.
        number: of the batch in the plan of the epoch.
    """

    width: int
    lengths: Tuple[int, ...]
    before: int
    total: int
    number: int


class SharedMemoryCriterion(TrimeCriterion):
    """Base of the criterions with a memory of several segments, here or on other devices.

    Keys are the tokens of a group of devices, without padding, in the order of devices; a subclass says
    which of them a token sees (:meth:`visibility`) and which devices are a group (:meth:`group_size`).
    ``name`` is the registered name, for messages.

    Raises:
        ValueError: for another task, or an order of batches that does not suit the memory.
    """

    name: str

    def __init__(self, cfg: SharedMemoryConfig, task: Any) -> None:
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
    def visibility(self, layout: Layout) -> Visibility:
        """What each position of the batch sees of the group's keys."""

    def memory(self, representation: Tensor, target: Tensor, sample: Dict[str, Any]) -> Callable[[], Memory]:
        lengths, counts = tuple(sample["layout"]["lengths"]), tuple(sample["layout"]["counts"])
        place, (rows, width) = sample["layout"]["place"], target.shape
        if sum(lengths) == rows * width:
            keys, tokens = representation.flatten(0, 1), target.flatten()
        else:
            keys = torch.cat([row[:length] for row, length in zip(representation, lengths)])
            tokens = torch.cat([row[:length] for row, length in zip(target, lengths)])
        lengths += (0,) * (rows - len(lengths))  # --pad-to-fixed-bsz adds rows of padding
        gathered = start_gather(keys, tokens, counts, place, self.gather_grad)
        before, total = sum(counts[:place]), sum(counts)
        layout = Layout(width, lengths, before, total, sample["layout"]["number"])
        visibility = self.visibility(layout)

        def memory() -> Memory:
            keys, tokens, key_grad = gathered()
            return Memory(keys, tokens, visibility, key_grad)

        return memory
