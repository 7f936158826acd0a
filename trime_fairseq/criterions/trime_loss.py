"""``--criterion trime_loss``: the memory of a token is the earlier tokens of its own segment."""

from fairseq.criterions import register_criterion
from torch import Tensor

from ..data.planned import TrainingSample
from ..memory import Visibility
from .base import Memory, TrimeCriterion, TrimeCriterionConfig


@register_criterion("trime_loss", dataclass=TrimeCriterionConfig)
class TrimeLoss(TrimeCriterion):
    """TrimeLM. Padding stands at the end of a segment, where no earlier token can see it."""

    def memory(self, representation: Tensor, target: Tensor, sample: TrainingSample) -> Memory:
        segments, length, _ = representation.shape
        visibility = Visibility.own_segment(segments, length)
        return Memory(representation.flatten(0, 1), target.flatten(), visibility)
