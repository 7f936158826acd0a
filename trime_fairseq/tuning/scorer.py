"""A scorer that adds up the loss of every point of a grid."""

from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from ..evaluation.config import MemorySettings
from ..evaluation.memory_scores import Grid
from ..evaluation.result import Totals
from ..evaluation.scorer import Extras, Memories, TrimeScorer
from ..memory import trime_log_prob
from .axes import Axes

# Log-probabilities that are computed at once: enough to pay for their calls, in less than 100 MB on a CPU.
_AT_ONCE = {"cpu": 2**22, "cuda": 2**25}


class GridScorer(TrimeScorer):
    """What :class:`TrimeScorer` gives for its settings, and the loss of each point of a grid of them.

    The model runs once, and the neighbours are searched once, for the largest k.

    Args:
        axes: the grid; ``settings`` are one of its points, that of the largest memories.
        at_once: log-probabilities that are computed at a time; 0 chooses by device.
        settings, totals, pad, softmax_batch, skip_bos, extras: see :class:`TrimeScorer`.

    Raises:
        ValueError: if ``settings`` are no point of the grid.
    """

    def __init__(
        self,
        axes: Axes,
        settings: MemorySettings,
        totals: Totals,
        pad: int,
        softmax_batch: int = 0,
        skip_bos: bool = False,
        extras: Optional[Extras] = None,
        at_once: int = 0,
    ) -> None:
        self.axes = axes
        self._position = axes.position(settings)
        self._at_once = at_once
        self._nll: Optional[Tensor] = None
        self._lengths: Sequence[int] = ()
        super().__init__(settings, totals, pad, softmax_batch, skip_bos, extras)

    def nll(self) -> Tensor:
        """Sums over all tokens of their negative log-likelihoods, in nats: float64, of the axes' shape."""
        return torch.zeros(self.axes.shape).double() if self._nll is None else self._nll.cpu()

    def _grid(self) -> Tuple[Grid, Tuple[float, ...]]:
        axes, settings = self.axes, self.settings
        sizes = axes.mem_size if settings.use_long else ()
        ks = axes.k if settings.searches else ()
        if settings.knnlm:
            return Grid((), sizes, ks), axes.softmax_temp
        return Grid(axes.softmax_temp, sizes, ks), axes.interp_temp if settings.use_interp else ()

    def generate(self, models: List[Any], sample: Dict[str, Any], **unused: Any) -> List[Any]:
        self._lengths = [last - first for first, last in sample["spans"]]
        return super().generate(models, sample, **unused)

    def _combine(
        self, token_lse: Tensor, target_logit: Tensor, memories: Memories
    ) -> Tuple[Tensor, Tensor, Tensor]:
        for part in self._parts(token_lse):
            nll = self._sums(token_lse[part], target_logit[part], _select(memories, part))
            self._nll = nll if self._nll is None else self._nll + nll
        temp, size, k, interp_temp, _ = self._position
        joint = [[[memories.joint[temp][size][k]]]] if memories.joint else []
        of_neighbors = temp if self.settings.knnlm else interp_temp
        neighbors = [[memories.neighbors[of_neighbors][k]]] if memories.neighbors else []
        return super()._combine(token_lse, target_logit, Memories(joint, neighbors))

    def _parts(self, token_lse: Tensor) -> Iterator[Union[slice, Tensor]]:
        """The tokens that count, a few at a time."""
        most = self._at_once or _AT_ONCE.get(token_lse.device.type, _AT_ONCE["cuda"])
        points = self.axes.shape
        size = max(1, most // (points[0] * points[1] * points[2] * points[3]))
        count = len(token_lse)
        if not self.skip_bos:
            yield from (slice(begin, begin + size) for begin in range(0, count, size))
            return
        starts = [sum(self._lengths[:row]) for row in range(len(self._lengths))]
        counted = torch.ones(count, dtype=torch.bool)
        counted[starts] = False
        yield from counted.nonzero().squeeze(1).to(token_lse.device, non_blocking=True).split(size)

    def _sums(self, token_lse: Tensor, target_logit: Tensor, memories: Memories) -> Tensor:
        """Of n tokens, with what memories say about them: float64, of the axes' shape."""
        temps, sizes, ks, interp_temps, lmbdas = self.axes.shape
        log_prob = (target_logit - token_lse).view(1, 1, 1, 1, -1)
        if memories.joint:
            pairs = [pair for of_long in memories.joint for of_ext in of_long for pair in of_ext]
            all_lse, positive_lse = (torch.stack(sums) for sums in zip(*pairs))
            log_prob = trime_log_prob(token_lse, target_logit, all_lse, positive_lse)
            log_prob = log_prob.view(temps, sizes, ks, 1, -1)
        if not memories.neighbors:
            return -log_prob.sum(-1, dtype=torch.float64).unsqueeze(-1)
        pairs = [pair for of_k in memories.neighbors for pair in of_k]
        other, exists = (torch.stack(pieces) for pieces in zip(*pairs))
        if self.settings.knnlm:
            other, exists = (pieces.view(temps, 1, ks, 1, -1) for pieces in (other, exists))
        else:
            other, exists = (
                pieces.view(interp_temps, ks, -1).transpose(0, 1)[None, None] for pieces in (other, exists)
            )
        result = log_prob.new_empty(self.axes.shape, dtype=torch.float64)
        for number, lmbda in enumerate(self.axes.lmbda):
            mixed = _interpolate(log_prob, other, lmbda, exists)
            result[..., number] = mixed.sum(-1, dtype=torch.float64)
        return result.neg_()


def _select(memories: Memories, part: Union[slice, Tensor]) -> Memories:
    return Memories(
        [
            [[(every[part], positive[part]) for every, positive in of_ext] for of_ext in of_long]
            for of_long in memories.joint
        ],
        [[(other[part], exists[part]) for other, exists in of_k] for of_k in memories.neighbors],
    )


def _interpolate(log_prob: Tensor, other: Tensor, weight: float, exists: Tensor) -> Tensor:
    """:func:`trime_fairseq.memory.interpolate` with broadcasting: logarithms of weights, which most points
    share, are computed once. ``other`` is -inf where it does not exist."""
    share = weight * exists.to(log_prob.dtype)
    return torch.logaddexp((1 - share).log() + log_prob, share.log() + other)
