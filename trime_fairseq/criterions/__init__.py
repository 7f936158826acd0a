"""Criterions that train with memories of the same batches, and the base to write one's own.

A criterion says which memory a token sees; the base does the rest. This one lets a token see the last 64
tokens of its segment::

    @register_criterion("recent_loss", dataclass=TrimeCriterionConfig)
    class RecentLoss(TrimeCriterion):
        def memory(self, representation, target, sample):
            segments, length, _ = representation.shape
            position = torch.arange(length)
            visibility = Visibility(position - 64, position, repeats=segments)
            return Memory(representation.flatten(0, 1), target.flatten(), visibility)
"""

from .base import Memory, PendingMemory, TrimeCriterion, TrimeCriterionConfig
from .joint import JointCriterion, WarmUpConfig
from .shared_memory import SharedMemoryConfig, SharedMemoryCriterion
from .trime_ext_loss import TrimeExtConfig, TrimeExtLoss
from .trime_long_loss import TrimeLongLoss, TrimeLongLossSameDevice
from .trime_loss import TrimeLoss
from .trime_mt_loss import TrimeMtConfig, TrimeMtLoss

__all__ = [
    "WarmUpConfig",
    "JointCriterion",
    "Memory",
    "PendingMemory",
    "SharedMemoryConfig",
    "SharedMemoryCriterion",
    "TrimeCriterion",
    "TrimeCriterionConfig",
    "TrimeExtConfig",
    "TrimeExtLoss",
    "TrimeLongLoss",
    "TrimeLongLossSameDevice",
    "TrimeLoss",
    "TrimeMtConfig",
    "TrimeMtLoss",
]
