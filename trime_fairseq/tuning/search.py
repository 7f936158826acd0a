"""The best setting of a family, from a record."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..evaluation.config import MemoryConfig
from ..evaluation.mixture import Distributions, weighted
from ..evaluation.result import perplexity
from .families import allowed_values, effective_values, with_values
from .progress import Progress
from .record import Record, distributions_of, mixture, without_memory
from .weights import solve_weights

# More combinations of values than this are not tried one by one.
_MOST_TRIED = 4096
# Settings that take turns in pairs: where one of them changes, the other one's best moves along.
_PAIRS = (("softmax_temp", "mem_size"), ("k", "interp_temp"), ("softmax_temp", "k"))
# Decimals of a weight: no text tells more.
_DECIMALS = 6
# The least weight of the model: without one, words that no memory predicts have probability 0.
_LEAST_REST = 10**-_DECIMALS

# A value for each setting of :attr:`Tuned.values`, in their order.
Place = tuple[float, ...]


class Setting(NamedTuple):
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
        values: the values that each setting may have, by its name.
        tried: what was tried, with the best weights, by its place.
        without_memory: the model alone.
        tokens: number of tokens.
    """

    family: MemoryConfig
    values: dict[str, tuple[float, ...]]
    tried: dict[Place, Setting]
    without_memory: Setting
    tokens: int

    @cached_property
    def settings(self) -> list[Setting]:
        """All that were tried and have a loss, best first; of several that are one distribution the first."""
        distinct: dict[tuple[tuple[str, float], ...], Setting] = {}
        numbers = [setting for setting in self.tried.values() if not math.isnan(setting.loss)]
        for setting in sorted(numbers, key=_loss):
            distinct.setdefault(tuple(effective_values(setting.config).items()), setting)
        return list(distinct.values())

    @property
    def best(self) -> Setting:
        """The best setting, which has a finite loss: otherwise :func:`tune` raises an error."""
        return self.settings[0]

    def best_by(self, name: str) -> dict[float, Setting]:
        """The best with each value of a setting, such as ``mem_size``; empty if the family lacks it."""
        position = list(self.values).index(name) if name in self.values else 0
        found: dict[float, Setting] = {}
        for value in self.values.get(name, ()):
            found[value] = min(
                (at for place, at in self.tried.items() if place[position] == value), key=_loss
            )
        return found

    @property
    def combinations(self) -> int:
        """How many there are of all values; where more than were tried, settings took turns."""
        return math.prod(map(len, self.values.values()))


def tune(record: Record, family: MemoryConfig) -> Tuned:
    """Tries the values of the record's axes that the family may have, and solves for its weights.

    Up to 4,096 combinations are all tried. Of more, pairs of settings take turns, each from the best of the
    others, until nothing changes; then single ones do, for each size of the long-term memory.

    Args:
        record: was made for families with the memories of this one.
        family: see :mod:`trime_fairseq.tuning.families`.

    Raises:
        ValueError: if the record lacks a memory of the family, or was made with other tails; and if no
            setting has a finite loss.
    """
    search = _Search(record, family)
    if math.prod(map(len, search.values.values())) <= _MOST_TRIED:
        search.try_all()
    else:
        search.take_turns()
    _check_finite(list(search.tried.values()))
    alone = without_memory(family)
    without = Setting(alone, _bits(mixture(record, alone).log_prob))
    return Tuned(family, search.values, search.tried, without, record.tokens)


class _Search:
    def __init__(self, record: Record, family: MemoryConfig) -> None:
        self.record, self.family = record, family
        self.values = allowed_values(family, record.axes)
        self.names = tuple(self.values)
        self.tried: dict[Place, Setting] = {}
        self._progress = Progress(0, "settings tried")

    def try_all(self) -> None:
        self._progress = Progress(math.prod(map(len, self.values.values())), "settings")
        for place in itertools.product(*self.values.values()):
            self.loss(place)

    def take_turns(self) -> None:
        start = {name: values[-1] for name, values in self.values.items()}
        # The nearest to what models are trained with; the middle of what is possible.
        if "softmax_temp" in start:
            start["softmax_temp"] = min(self.values["softmax_temp"], key=lambda value: abs(math.log(value)))
        if "interp_temp" in start:
            start["interp_temp"] = self.values["interp_temp"][len(self.values["interp_temp"]) // 2]
        best = self._turns(tuple(start.values()), _PAIRS)
        for size in self.values.get("mem_size", ()):
            others = [(name,) for name in self.names if name != "mem_size"]
            self._turns(self._moved(best, ("mem_size",), (size,)), others)

    def _turns(self, best: Place, blocks: Sequence[tuple[str, ...]]) -> Place:
        """The best place after blocks of settings took turns from ``best``, until nothing changes."""
        while True:
            before = best
            for block in blocks:
                names = [name for name in block if name in self.names]
                best = min([best, *self._through(best, names)], key=self.loss)
            if best == before:
                return best

    def _through(self, place: Place, names: Sequence[str]) -> Iterator[Place]:
        """All places that differ from one in the settings ``names`` only."""
        for values in itertools.product(*(self.values[name] for name in names)):
            yield self._moved(place, names, values)

    def _moved(self, place: Place, names: Sequence[str], values: Sequence[float]) -> Place:
        changed = dict(zip(self.names, place)) | dict(zip(names, values))
        return tuple(changed.values())

    def loss(self, place: Place) -> float:
        if place not in self.tried:
            self.tried[place] = self._try(place)
            self._progress.add(1)
        return _loss(self.tried[place])

    def _try(self, place: Place) -> Setting:
        config = with_values(self.family, dict(zip(self.names, place)))
        parts = distributions_of(self.record, config)
        weights: dict[str, Any] = dict(zip(config.weight_names, _best_weights(parts, config.weights)))
        config = replace(config, **weights)
        return Setting(config, _bits(weighted(parts, config.weights).log_prob))


def _best_weights(parts: Distributions, fixed: Sequence[float | None]) -> list[float]:
    """The best weights, rounded, with a sum below 1; fixed weights stay as they are."""
    first = parts.first.log_prob
    log_probs = [torch.where(other.exists, other.log_prob, first) for other in parts.others]
    found = solve_weights([first, *log_probs], fixed)
    weights = [
        weight if given is not None else round(weight, _DECIMALS) for weight, given in zip(found, fixed)
    ]
    excess = sum(weights) - (1 - _LEAST_REST)
    solved = [number for number, given in enumerate(fixed) if given is None]
    if excess > 0 and solved:
        largest = max(solved, key=weights.__getitem__)
        weights[largest] = max(0.0, round(weights[largest] - excess, _DECIMALS))
    return weights


def _check_finite(settings: Sequence[Setting]) -> None:
    """Raises ValueError where there is no best setting."""
    if any(math.isfinite(setting.loss) for setting in settings):
        return
    if any(setting.loss == math.inf for setting in settings):
        raise ValueError(
            "the loss of all settings is infinite: some token has probability 0 with each of them; lower the "
            "weights that are given (--lmbda, --cache-lmbda)"
        )
    raise ValueError(
        "the loss of all settings is NaN: similarities to memories overflow, or their keys are no numbers"
    )


def _bits(log_prob: Tensor) -> float:
    return -log_prob.double().mean().item() / math.log(2)


def _loss(setting: Setting) -> float:
    return math.inf if math.isnan(setting.loss) else setting.loss
