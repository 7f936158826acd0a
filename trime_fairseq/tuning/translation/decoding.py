"""The best settings by BLEU: the best by loss are decoded, and those around them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from .search import Tried, TunedByLoss
from .settings import Setting

_AXES = ("temperature", "weight", "k")
# How far a weight moves at a time.
_STEP = 0.1
_LEAST_WEIGHT, _MOST_WEIGHT = 0.05, 0.95


@dataclass(frozen=True)
class Quality:
    """Of the translations of a text.

    Attributes:
        bleu: of sacrebleu.
        length_ratio: their length over that of the references.
        sentences_per_second: of decoding.
    """

    bleu: float
    length_ratio: float
    sentences_per_second: float


@dataclass(frozen=True)
class Decoded:
    """A setting that was decoded."""

    tried: Tried
    quality: Quality

    @property
    def setting(self) -> Setting:
        return self.tried.setting


@dataclass(frozen=True)
class TunedByBleu:
    """What decoding tells.

    Attributes:
        plain: without memory.
        decoded: all settings, best first; of equal ones that of the lower loss.
        unfinished: decoder forms of which better settings may lie beside the best one: not all were decoded.
    """

    plain: Quality
    decoded: tuple[Decoded, ...]
    unfinished: tuple[str, ...]

    @property
    def best(self) -> Decoded:
        """The best setting of all."""
        return self.decoded[0]

    def best_of(self, kind: str) -> Decoded:
        """The best of a decoder form."""
        return next(one for one in self.decoded if one.setting.kind == kind)


def tune_by_bleu(tuned: TunedByLoss, decode: Callable[[Setting | None], Quality], most: int) -> TunedByBleu:
    """Decodes the best setting by loss of each decoder form, and climbs from it while BLEU grows.

    The best temperature and weight of BLEU are often others than those of the loss. Beside a setting are
    about twice and half its temperature, weights of ``fix`` that are 0.1 more or less, and the next
    numbers of neighbours. Temperature, weight and number take turns; of two values the one with the lower
    loss is first.

    Args:
        tuned: what the references tell.
        decode: translates the text with a setting; with None, without memory.
        most: how many settings to decode of each form, at least 1.
    """
    plain = decode(None)
    decoded: list[Decoded] = []
    unfinished = []
    for kind in tuned.axes.kinds:
        first = tuned.best_of(kind)
        found = [Decoded(first, decode(first.setting))]
        turns = dict.fromkeys(_AXES, 0)
        while candidates := _undecoded(tuned, found):
            if len(found) >= most:
                unfinished.append(kind)
                break
            axis = min(candidates, key=lambda name: turns[name])
            turns[axis] += 1
            chosen = min(candidates[axis], key=lambda one: one.loss)
            found.append(Decoded(chosen, decode(chosen.setting)))
        decoded += found
    return TunedByBleu(plain, tuple(sorted(decoded, key=_order)), tuple(unfinished))


def _undecoded(tuned: TunedByLoss, found: list[Decoded]) -> dict[str, list[Tried]]:
    """The settings beside the best one that were not decoded, by what differs."""
    axes, best = tuned.axes, min(found, key=_order).setting
    weights: list[float] = []
    if best.weight is not None and axes.weight is None:
        weights = [best.weight + _STEP, best.weight - _STEP]
    beside = {
        "temperature": [
            replace(best, temperature=other) for other in axes.warmer_or_colder(best.temperature)
        ],
        "weight": [
            replace(best, weight=round(min(max(weight, _LEAST_WEIGHT), _MOST_WEIGHT), 3))
            for weight in weights
        ],
        "k": [replace(best, k=other) for other in axes.more_or_fewer(best.k)],
    }
    done = {one.setting for one in found}
    new = {
        axis: [tuned.loss_of(setting) for setting in settings if setting not in done]
        for axis, settings in beside.items()
    }
    numbers = {axis: [one for one in some if not math.isnan(one.loss)] for axis, some in new.items()}
    return {axis: some for axis, some in numbers.items() if some}


def _order(one: Decoded) -> tuple[float, float]:
    return -one.quality.bleu, one.tried.loss
