"""``--criterion trime_long_loss`` and ``trime_long_loss_same_device``: memory of consecutive segments."""

import logging

from fairseq.criterions import register_criterion

from ..data.order import TrainingOrder
from ..data.planned import BatchLayout
from ..memory import Visibility
from .shared_memory import SharedMemoryConfig, SharedMemoryCriterion

logger = logging.getLogger(__name__)


class ConsecutiveMemoryCriterion(SharedMemoryCriterion):
    """A token sees all tokens before it in the text, as far as they are in the batches of its group."""

    def visibility(self, layout: BatchLayout, width: int) -> Visibility:
        return Visibility.consecutive(width, layout.lengths, layout.before)

    def group_size(self, order: TrainingOrder) -> int:
        if not order.keep_order or order.predefined_batches:
            raise ValueError(
                f"--criterion {self.name} takes its memory from consecutive segments: pass --keep-order, "
                "without --predefined-batches"
            )
        if order.devices_per_memory == order.segments_per_device == 1:
            logger.warning(
                f"TRIME: the memory of {self.name} holds a single segment, so it is that of trime_loss: "
                "raise --max-tokens"
            )
        return order.devices_per_memory


@register_criterion("trime_long_loss", dataclass=SharedMemoryConfig)
class TrimeLongLoss(ConsecutiveMemoryCriterion):
    """TrimeLM_long with ``--train-mem-size`` tokens of memory, spread over a group of devices."""

    name = "trime_long_loss"

    def group_size(self, order: TrainingOrder) -> int:
        devices = super().group_size(order)
        if not order.train_mem_size:
            largest = order.tokens_per_device * order.world_size
            raise ValueError(
                f"--criterion {self.name} needs --train-mem-size N, the tokens of the memory: --max-tokens "
                f"times the number of devices that share it ({largest} for all)"
            )
        return devices


@register_criterion("trime_long_loss_same_device", dataclass=SharedMemoryConfig)
class TrimeLongLossSameDevice(ConsecutiveMemoryCriterion):
    """TrimeLM_long with the memory of one device's batch: ``--max-tokens`` tokens."""

    name = "trime_long_loss_same_device"

    def group_size(self, order: TrainingOrder) -> int:
        devices = super().group_size(order)
        if devices > 1:
            raise ValueError(
                f"--criterion {self.name} has the memory of one device: leave --train-mem-size out, or use "
                "--criterion trime_long_loss"
            )
        return devices
