"""The distribution of any setting, from a record."""

from ..evaluation.config import MemoryConfig
from ..evaluation.scorer import Mixture
from .record import Record


def mixture(record: Record, config: MemoryConfig) -> Mixture:
    """``log_prob``, ``mass`` and ``share`` of all tokens, float32 [N] each, as a separate evaluation gives them.

    Args:
        record: holds the memories that ``config`` uses.
        config: a complete setting, with its weights; ``mode="lm"`` is the model without memory.

    Raises:
        ValueError: if a value is not on the axes of the record, or a memory is not in it.
    """
    raise NotImplementedError
