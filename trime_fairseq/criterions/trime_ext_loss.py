"""``--criterion trime_ext_loss``: memory of other, similar segments, on all devices."""

import logging
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
from fairseq.criterions import register_criterion
from omegaconf import II

from ..data.order import TrainingOrder
from ..data.planned import BatchLayout
from ..distributed import rank
from ..memory import Visibility
from .base import TrainingTask
from .shared_memory import SharedMemoryConfig, SharedMemoryCriterion

logger = logging.getLogger(__name__)

# fairseq's default of --restore-file.
_OWN_CHECKPOINT = "checkpoint_last.pt"


@dataclass
class TrimeExtConfig(SharedMemoryConfig):
    cross_sent_ratio: float = field(
        default=0.0,
        metadata={"help": "probability that a batch sees nothing of a token's own segment, in training"},
    )
    seed: int = II("common.seed")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    restore_file: str = II("checkpoint.restore_file")


@register_criterion("trime_ext_loss", dataclass=TrimeExtConfig)
class TrimeExtLoss(SharedMemoryCriterion):
    """TrimeLM_ext. A token sees all tokens of all other segments, and the earlier ones of its own; with
    probability ``--cross-sent-ratio``, drawn per batch and device in training, none of its own."""

    name = "trime_ext_loss"
    sees_later_tokens = True

    def __init__(self, cfg: TrimeExtConfig, task: TrainingTask) -> None:
        super().__init__(cfg, task)
        if not 0.0 <= cfg.cross_sent_ratio <= 1.0:
            raise ValueError(f"--cross-sent-ratio is a probability, in [0, 1]: {cfg.cross_sent_ratio}")
        self.cross_sent_ratio = cfg.cross_sent_ratio
        self.seed = cfg.seed
        starts_afresh = not cfg.finetune_from_model and cfg.restore_file == _OWN_CHECKPOINT
        missing = ["a warm-up (--ce-warmup-epoch)"] if starts_afresh and not self.warms_up else []
        missing += [] if cfg.cross_sent_ratio else ["--cross-sent-ratio"]
        if missing:
            logger.warning(
                f"TRIME: trime_ext_loss without {' and without '.join(missing)}: the model may learn to copy "
                "from its batch and little else, and then it is useless without such a memory"
            )

    def group_size(self, order: TrainingOrder) -> int:
        if order.train_mem_size:
            raise ValueError(
                f"--criterion {self.name} has the batches of all devices as memory: "
                "leave --train-mem-size out"
            )
        if order.world_size == order.segments_per_device == 1:
            raise ValueError(
                f"--criterion {self.name} takes its memory from other segments, but --max-tokens "
                f"{order.max_tokens} of one device holds only one: raise --max-tokens"
            )
        if not order.predefined_batches:
            logger.warning(
                "TRIME: trime_ext_loss without --predefined-batches: the segments of a batch are not "
                "similar, and the model hardly learns to use other segments than its own"
            )
        return order.world_size

    def visibility(self, layout: BatchLayout, width: int) -> Visibility:
        hide_own = self.training and self._draw(layout.number) < self.cross_sent_ratio
        return Visibility.all_segments(width, layout.lengths, layout.before, layout.total, hide_own)

    def _draw(self, number: int) -> float:
        """A number in [0, 1) that depends on seed, update, rank and batch alone: a run that is repeated or
        resumed draws the same, whatever else draws numbers."""
        entropy = [self.seed % 2**32, self.task.update_num, rank(), number]
        return float(np.random.default_rng(entropy).random())
