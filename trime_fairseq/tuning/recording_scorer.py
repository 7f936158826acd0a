"""A scorer that keeps what it finds of every token."""

from collections.abc import Sequence

from ..evaluation.config import MemoryConfig
from ..evaluation.scorer import MemoryScorer, ScorerParts
from .axes import MemoryAxes
from .record import Record


class RecordingScorer(MemoryScorer):
    """Scores by the model without memory, and keeps the scores of all memories at all values of the axes.

    Args:
        families: which memories are needed; whether tails are charged.
        axes: for which values.
        config: :func:`recording_config` of the families.
        pad, parts: see :class:`MemoryScorer`.
    """

    def __init__(
        self,
        families: Sequence[MemoryConfig],
        axes: MemoryAxes,
        config: MemoryConfig,
        pad: int,
        parts: ScorerParts | None = None,
    ) -> None:
        raise NotImplementedError

    def record(self) -> Record:
        """All tokens; call after the last batch."""
        raise NotImplementedError
