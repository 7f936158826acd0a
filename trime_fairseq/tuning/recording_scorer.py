"""A scorer that keeps what it finds of every token."""

import torch
from torch import Tensor

from ..evaluation.axes import MemoryAxes
from ..evaluation.config import MemoryConfig
from ..evaluation.memory_scores import MemoryScores, NeighborScores, ScoredMemories
from ..evaluation.mixture import Mixture, mix
from ..evaluation.scorer import MemoryScorer, ScoredBatch, ScorerParts
from .progress import Progress
from .record import Record
from .storage import allocate

_WITHOUT_MEMORY = MemoryConfig(mode="lm")


class RecordingScorer(MemoryScorer):
    """Scores by the model without memory, and keeps the scores of all memories at all values of the axes.

    Args:
        axes: for which values; the largest are those of ``config``.
        config: :func:`trime_fairseq.tuning.recording_config` of the families.
        pad, parts: see :class:`MemoryScorer`; ``parts.tokens`` must be known.

    Raises:
        ValueError: if there is no room for the scores.
    """

    # The evaluation's own result is that of the model alone.
    judges = False

    def __init__(
        self, axes: MemoryAxes, config: MemoryConfig, pad: int, parts: ScorerParts | None = None
    ) -> None:
        self._all_axes = axes
        super().__init__(config, pad, parts)
        self._counted_tokens = 0
        self._progress = Progress(self.parts.tokens, "tokens")
        # Targets and samples; token_lse and target_logit; what the memories say, from the first batch on.
        self._integers = torch.empty(2, self.parts.tokens, dtype=torch.int64)
        self._floats = torch.empty(2, self.parts.tokens)
        self._memories: ScoredMemories | None = None

    def record(self) -> Record:
        """All tokens; call after the last batch."""
        count = self._counted_tokens
        targets, samples = self._integers[:, :count]
        token_lse, target_logit = self._floats[:, :count]
        memories = _narrowed(self._memories or ScoredMemories(), 0, count)
        charges = self.config.charges_tails
        return Record(self._all_axes, targets, samples, token_lse, target_logit, memories, charges)

    def _axes(self) -> MemoryAxes:
        sizes = tuple(size for size in self._all_axes.mem_sizes if size) if self.config.use_long else ()
        return self._all_axes._replace(mem_sizes=sizes)

    def _combine(self, batch: ScoredBatch) -> Mixture:
        lengths = torch.tensor(batch.lengths)
        samples = torch.tensor(batch.sample_ids).repeat_interleave(lengths)
        counted = torch.arange(len(samples)) if batch.counted is None else batch.counted
        begin, end = self._counted_tokens, self._counted_tokens + len(counted)
        self._integers[:, begin:end] = torch.stack([batch.targets.cpu(), samples])[:, counted]
        self._floats[:, begin:end] = torch.stack([batch.token_lse, batch.target_logit]).cpu()[:, counted]
        if self._memories is None:
            self._memories = _room_for(batch.memories, self.parts.tokens)
        for kept, new in zip(_tensors(_narrowed(self._memories, begin, end)), _tensors(batch.memories)):
            # Of ``exists`` the first temperature stands for all.
            kept.copy_(new[: kept.size(0)].cpu()[..., counted])
        self._counted_tokens = end
        self._progress.add(len(samples))
        return mix(_WITHOUT_MEMORY, batch.token_lse, batch.target_logit, None, None)


def _room_for(memories: ScoredMemories, tokens: int) -> ScoredMemories:
    """Tensors for the scores of so many tokens, shaped like those of a batch."""
    shapes = [(*values.shape[:-1], tokens) for values in _tensors(memories) if values.dtype.is_floating_point]
    room = iter(allocate(shapes))
    local, long, external = (
        None if part is None else MemoryScores(next(room), next(room))
        for part in (memories.local, memories.long, memories.external)
    )
    alone = memories.alone
    if alone is not None:
        # Whether there are neighbours does not depend on a temperature.
        exists = torch.empty(1, alone.exists.size(1), tokens, dtype=torch.bool)
        alone = NeighborScores(next(room), exists)
    return ScoredMemories(local, long, external, alone)


def _narrowed(memories: ScoredMemories, begin: int, end: int) -> ScoredMemories:
    """Views of the tokens [begin, end)."""
    local, long, external = (
        None if part is None else MemoryScores(*(values[..., begin:end] for values in part))
        for part in (memories.local, memories.long, memories.external)
    )
    alone = memories.alone
    if alone is not None:
        alone = NeighborScores(*(values[..., begin:end] for values in alone))
    return ScoredMemories(local, long, external, alone)


def _tensors(memories: ScoredMemories) -> list[Tensor]:
    return [values for part in memories if part is not None for values in part]
