"""``--criterion trime_loss``: the memory of a token is the earlier tokens of its own segment."""

from typing import Any, Callable, Dict

from fairseq.criterions import register_criterion
from torch import Tensor

from ..memory import Visibility
from .base import Memory, TrimeCriterion, TrimeCriterionConfig


@register_criterion("trime_loss", dataclass=TrimeCriterionConfig)
class TrimeLoss(TrimeCriterion):
    """TrimeLM. Padding stands at the end of a segment, where no earlier token can see it."""

    def memory(self, representation: Tensor, target: Tensor, sample: Dict[str, Any]) -> Callable[[], Memory]:
        segments, length, width = representation.shape
        visibility = Visibility.own_segment(segments, length)
        return lambda: Memory(representation.reshape(-1, width), target.reshape(-1), visibility)
