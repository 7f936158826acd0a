"""The best setting of a family, from a record."""

from dataclasses import dataclass

from ..evaluation.config import MemoryConfig
from ..evaluation.result import perplexity
from .record import Record


@dataclass(frozen=True)
class Setting:
    """A complete setting, and its loss in bits per token."""

    config: MemoryConfig
    loss: float

    @property
    def ppl(self) -> float:
        """Perplexity."""
        return perplexity(self.loss)


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes:
        family: what was tuned.
        settings: all that were tried, best first; of settings that are the same distribution (a weight of 0 makes
            a temperature meaningless) one.
        by_size: the best of each size of the long-term memory, increasing (size 0: ``use_long`` is off); the best
            alone where the family has no such memory.
        remarks: which best values lie at the end of their axis, or at a limit.
        without_memory: loss of the model without memory, in bits per token.
        tokens: number of tokens.
    """

    family: MemoryConfig
    settings: tuple[Setting, ...]
    by_size: tuple[Setting, ...]
    remarks: tuple[str, ...]
    without_memory: float
    tokens: int

    @property
    def best(self) -> Setting:
        return self.settings[0]


def tune(record: Record, family: MemoryConfig) -> Tuned:
    """Tries all values of the record's axes that the family may use, and solves for its weights.

    Where two memories have temperatures of their own, their blocks of axes take turns, from the best of each,
    until nothing changes.

    Raises:
        ValueError: if the record lacks a memory of the family.
    """
    raise NotImplementedError
