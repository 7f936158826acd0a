"""A scorer that adds up the loss of every point of a grid."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..evaluation.config import MemoryConfig
from ..evaluation.memory_scores import MemoryScores, NeighborScores
from ..evaluation.mixture import Mixture, mix
from ..evaluation.scorer import Grid, MemoryScorer, ScorerParts
from ..memory import interpolate, trime_log_prob
from .axes import Axes

# Log-probabilities that are computed at once: enough to pay for their calls, in less than 100 MB on a CPU.
_AT_ONCE = {"cpu": 2**22, "cuda": 2**25}


class GridScorer(MemoryScorer):
    """What :class:`MemoryScorer` gives for its configuration, and the loss of each point of a grid.

    The model runs once, and the neighbours are searched once, for the largest k.

    Args:
        axes: the grid; ``config`` is one of its points, that of the largest memories.
        config, pad, parts: see :class:`MemoryScorer`.
        at_once: log-probabilities that are computed at a time; 0 chooses by device.

    Raises:
        ValueError: if ``config`` is no point of the grid.
    """

    # The evaluation's own result is of one point among many.
    judges = False

    def __init__(
        self,
        axes: Axes,
        config: MemoryConfig,
        pad: int,
        parts: ScorerParts | None = None,
        at_once: int = 0,
    ) -> None:
        self.axes = axes
        self._position = axes.position(config)
        self._at_once = at_once
        self._nll: Tensor | None = None
        super().__init__(config, pad, parts)

    def nll(self) -> Tensor:
        """Sums over all tokens of their negative log-likelihoods, in nats: float64, of the axes' shape."""
        return torch.zeros(self.axes.shape).double() if self._nll is None else self._nll.cpu()

    def _grid(self) -> Grid:
        axes, config = self.axes, self.config
        sizes = axes.mem_size if config.use_long else ()
        ks = axes.k if config.searches else ()
        if config.knnlm:
            return Grid((), sizes, ks, axes.softmax_temp)
        return Grid(axes.softmax_temp, sizes, ks, axes.interp_temp if config.use_interp else ())

    def _combine(
        self,
        token_lse: Tensor,
        target_logit: Tensor,
        joint: MemoryScores | None,
        alone: NeighborScores | None,
        counted: Tensor | None,
    ) -> Mixture:
        for part in self._parts(token_lse, counted):
            nll = self._sums(
                token_lse[part],
                target_logit[part],
                None if joint is None else MemoryScores(*(lse[..., part] for lse in joint)),
                None if alone is None else NeighborScores(*(value[..., part] for value in alone)),
            )
            self._nll = nll if self._nll is None else self._nll + nll
        temperature, size, k, interp_temp, _ = self._position
        of_point = joint
        if joint is not None:
            of_point = MemoryScores(*(_at(lse, temperature, size, k) for lse in joint))
        if alone is not None:
            first = temperature if self.config.knnlm else interp_temp
            alone = NeighborScores(*(_at(value, first, k) for value in alone))
        return mix(self.config, token_lse, target_logit, of_point, alone)

    def _parts(self, token_lse: Tensor, counted: Tensor | None) -> Iterator[slice | Tensor]:
        """The tokens that count, a few at a time."""
        most = self._at_once or _AT_ONCE.get(token_lse.device.type, _AT_ONCE["cuda"])
        points = self.axes.shape
        size = max(1, most // (points[0] * points[1] * points[2] * points[3]))
        if counted is None:
            yield from (slice(begin, begin + size) for begin in range(0, len(token_lse), size))
        else:
            yield from torch.split(counted.to(token_lse.device, non_blocking=True), size)

    def _sums(
        self,
        token_lse: Tensor,
        target_logit: Tensor,
        joint: MemoryScores | None,
        alone: NeighborScores | None,
    ) -> Tensor:
        """Negative log-likelihoods, summed over n tokens, of every point: float64, of the axes' shape."""
        # [temperatures, sizes, ks, n], each of them 1 where nothing depends on it.
        log_prob = (target_logit - token_lse).view(1, 1, 1, -1)
        if joint is not None:
            log_prob = trime_log_prob(token_lse, target_logit, *joint)
        result = log_prob.new_empty(self.axes.shape, dtype=torch.float64)
        if alone is None:
            result[:] = log_prob.sum(-1, dtype=torch.float64)[..., None, None]
            return result.neg_()
        if self.config.knnlm:
            # [temperatures, 1, ks, 1, n]: the temperatures are those of the neighbours.
            other, exists = (value[:, None, :, None] for value in alone)
        else:
            # [1, 1, ks, interp_temps, n]
            other, exists = (value.transpose(0, 1)[None, None] for value in alone)
        for number, lmbda in enumerate(self.axes.lmbda):
            mixed = interpolate(log_prob.unsqueeze(3), (other, lmbda, exists))
            result[..., number] = mixed.sum(-1, dtype=torch.float64)
        return result.neg_()


def _at(values: Tensor, *position: int) -> Tensor:
    """The values [N] at a position of the grid; an axis of one value holds for all positions."""
    for index in position:
        values = values[index if values.size(0) > 1 else 0]
    return values
