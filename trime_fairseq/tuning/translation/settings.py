"""Settings of a translation memory, and which of them are tried."""

import math
from dataclasses import dataclass, replace

from ...generation import LAMBDA_TYPES, TranslationMemoryConfig

# A distribution is compared by its loss. What sums to more than 1 has none.
PROPER_TYPES = tuple(kind for kind in LAMBDA_TYPES if kind != "trime-published")
# Quarters of an octave. Scores of neighbours may be squared distances: in the hundreds.
_QUARTERS = (1.0, 1.19, 1.41, 1.68)
_TEMPERATURES = tuple(quarter * 2.0**octave for octave in range(-1, 11) for quarter in _QUARTERS) + (2048.0,)


@dataclass(frozen=True)
class Setting:
    """How neighbours join: values of ``--knn-lambda-type``, ``--k``, ``--knn-temperature-value`` and
    ``--knn-lambda-value`` (of ``fix`` only)."""

    kind: str
    k: int
    temperature: float
    weight: float | None = None

    def config(self, family: TranslationMemoryConfig) -> TranslationMemoryConfig:
        """The flags of a family, with these values."""
        return replace(
            family,
            knn_lambda_type=self.kind,
            k=self.k,
            knn_temperature_value=self.temperature,
            knn_lambda_value=self.weight,
        )

    @property
    def values(self) -> dict[str, str | float]:
        """By the names of flags."""
        named: dict[str, str | float | None] = {
            "knn_lambda_type": self.kind,
            "k": self.k,
            "knn_temperature_value": self.temperature,
            "knn_lambda_value": self.weight,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Axes:
    """What is tried.

    Attributes:
        kinds: of :data:`~trime_fairseq.generation.LAMBDA_TYPES`.
        ks, temperatures: increasing.
        weight: of ``fix``; None if the best one is solved for.
    """

    kinds: tuple[str, ...]
    ks: tuple[int, ...]
    temperatures: tuple[float, ...] = _TEMPERATURES
    weight: float | None = None

    @property
    def combinations(self) -> int:
        """How many settings there are."""
        return len(self.kinds) * len(self.ks) * len(self.temperatures)

    def values(self, name: str) -> tuple[float, ...]:
        """Of ``k`` or ``knn_temperature_value``."""
        return self.ks if name == "k" else self.temperatures

    def warmer_or_colder(self, temperature: float) -> list[float]:
        """About twice and half a temperature, as far as they are tried."""
        found = dict.fromkeys(_nearest(self.temperatures, temperature * factor) for factor in (2.0, 0.5))
        return [value for value in found if value != temperature]

    def more_or_fewer(self, k: int) -> list[int]:
        """The next numbers of neighbours."""
        place = self.ks.index(k)
        return [self.ks[other] for other in (place - 1, place + 1) if 0 <= other < len(self.ks)]


def powers_of_two(most: int) -> tuple[int, ...]:
    """From 1 to ``most``, which is there itself."""
    return tuple(sorted({*(1 << step for step in range(most.bit_length()) if 1 << step <= most), most}))


def _nearest(values: tuple[float, ...], wanted: float) -> float:
    return min(values, key=lambda value: abs(math.log(value / wanted)))
