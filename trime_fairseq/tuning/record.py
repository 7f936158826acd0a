"""What is known of every token after one pass of model and search: enough for any setting of the axes."""

from dataclasses import dataclass

from torch import Tensor

from ..evaluation.memory_scores import MemoryScores, NeighborScores
from .axes import MemoryAxes


@dataclass(frozen=True)
class Record:
    """Scores of N evaluated tokens, on the CPU; tokens that do not count (``--add-bos-token``) are left out.

    Attributes:
        axes: the T temperatures, S sizes, K numbers of neighbours and I temperatures of the neighbours alone.
        targets: int64 [N].
        samples: number of the sample in the text that each token belongs to, int64 [N].
        token_lse, target_logit: a and b of the objective, float32 [N].
        local: A and P of the local memory, float32 [T, 1, 1, N].
        long: of the last tokens before the sample, without the local memory, [T, S, 1, N].
        external: of the nearest keys, [T, 1, K, N].
        alone: the softmax over the neighbours alone, [I, K, N].

    A memory that no family needed is None. Large records lie in a temporary file, not in memory
    (:mod:`trime_fairseq.tuning.storage`).
    """

    axes: MemoryAxes
    targets: Tensor
    samples: Tensor
    token_lse: Tensor
    target_logit: Tensor
    local: MemoryScores | None = None
    long: MemoryScores | None = None
    external: MemoryScores | None = None
    alone: NeighborScores | None = None

    @property
    def tokens(self) -> int:
        """N."""
        return self.targets.numel()
