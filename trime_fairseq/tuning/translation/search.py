"""The best settings by the loss of the references: arithmetic on a record."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ...evaluation.result import perplexity
from ..progress import Progress
from ..weights import solve_weights
from .record import NeighborSums, ReferenceRecord
from .settings import Axes, Setting

# Decimals of a weight: no text tells more.
_DECIMALS = 3
_MOST_WEIGHT = 1 - 10**-_DECIMALS


@dataclass(frozen=True)
class Tried:
    """A setting and its loss: bits per token of the references. Of ``trime-published``, which is no
    distribution, it is the loss of ``trime-normalized``, which ranks the tokens of a step alike."""

    setting: Setting
    loss: float

    @property
    def ppl(self) -> float:
        """Perplexity."""
        return perplexity(self.loss)


@dataclass(frozen=True)
class TunedByLoss:
    """What the references tell.

    Attributes:
        record: of the references.
        axes: what was tried.
        tried: all settings, with the best weights.
        loss_without_memory: in bits per token.
    """

    record: ReferenceRecord
    axes: Axes
    tried: tuple[Tried, ...]
    loss_without_memory: float

    @property
    def tokens(self) -> int:
        """Of all references."""
        return len(self.record.targets)

    @cached_property
    def settings(self) -> list[Tried]:
        """Those that have a loss, best first."""
        return sorted((one for one in self.tried if not math.isnan(one.loss)), key=lambda one: one.loss)

    def best_of(self, kind: str) -> Tried:
        """The best of a decoder form."""
        return next(one for one in self.settings if one.setting.kind == kind)

    def loss_of(self, setting: Setting) -> Tried:
        """Any setting, with a weight of its own."""
        (sums,) = self.record.neighbors(setting.kind, setting.temperature, (setting.k,))
        return Tried(setting, _loss(self.record, setting, sums))


def tune_by_loss(record: ReferenceRecord, axes: Axes) -> TunedByLoss:
    """Tries all settings of the axes, and solves for the weights of ``fix``.

    Raises:
        ValueError: if a decoder form has no setting with a finite loss.
    """
    progress = Progress(axes.combinations, "settings")
    tried = []
    for kind in axes.kinds:
        found = list(_try_all(record, axes, kind, progress))
        if not any(math.isfinite(one.loss) for one in found):
            raise ValueError(
                f"--knn-lambda-type {kind}: no setting has a finite loss: scores of neighbours or logits "
                "of --path are no numbers, or --knn-lambda-value leaves the model no weight"
            )
        tried += found
    return TunedByLoss(record, axes, tuple(tried), _bits(record.without_memory))


def _try_all(record: ReferenceRecord, axes: Axes, kind: str, progress: Progress) -> Iterator[Tried]:
    for temperature in axes.temperatures:
        for k, sums in zip(axes.ks, record.neighbors(kind, temperature, axes.ks)):
            weight = None
            if kind == "fix":
                weight = _best_weight(record, sums) if axes.weight is None else axes.weight
            setting = Setting(kind, k, temperature, weight)
            yield Tried(setting, _loss(record, setting, sums))
            progress.add(1)


def _best_weight(record: ReferenceRecord, sums: NeighborSums) -> float:
    alone = record.without_memory
    (weight,) = solve_weights([alone, sums.log_prob(alone)])
    return min(round(weight, _DECIMALS), _MOST_WEIGHT)


def _loss(record: ReferenceRecord, setting: Setting, sums: NeighborSums) -> float:
    distribution = "trime-normalized" if setting.kind == "trime-published" else setting.kind
    return _bits(record.log_prob(distribution, sums, setting.weight))


def _bits(log_prob: Tensor) -> float:
    return -log_prob.double().mean().item() / math.log(2)
