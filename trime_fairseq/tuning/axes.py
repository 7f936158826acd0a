"""The axes of a grid of settings."""

import itertools
from typing import Any, Dict, Iterator, NamedTuple, Tuple

from ..evaluation.config import MemorySettings

# The value of each used axis, by its name.
Point = Dict[str, Any]


class Axes(NamedTuple):
    """Increasing values of the settings of the same names; (None,) where a setting has no meaning.

    With ``--knnlm`` ``softmax_temp`` is the temperature of the neighbours, and ``lmbda`` their weight.
    """

    softmax_temp: Tuple[float, ...]
    mem_size: Tuple[Any, ...]
    k: Tuple[Any, ...]
    interp_temp: Tuple[Any, ...]
    lmbda: Tuple[Any, ...]

    @property
    def shape(self) -> Tuple[int, ...]:
        return tuple(map(len, self))

    @property
    def used(self) -> Tuple[str, ...]:
        """Names of the axes that mean something."""
        return tuple(name for name, values in zip(AXES, self) if values != (None,))

    @property
    def tuned(self) -> Tuple[str, ...]:
        """Names of the axes with several values."""
        return tuple(name for name, values in zip(AXES, self) if len(values) > 1)

    def values(self, name: str) -> Tuple[Any, ...]:
        found: Tuple[Any, ...] = getattr(self, name)
        return found

    def points(self) -> Iterator[Point]:
        """All points, the last axis fastest: the order of a flattened tensor of :attr:`shape`."""
        for values in itertools.product(*self):
            yield {name: value for name, value in zip(AXES, values) if value is not None}

    def position(self, settings: MemorySettings) -> Tuple[int, ...]:
        """Where settings lie in the grid.

        Raises:
            ValueError: if they do not.
        """
        found = []
        for name, values in zip(AXES, self):
            value = getattr(settings, name)
            if values != (None,) and value not in values:
                raise ValueError(f"{flag(name)} {value} is not in the grid {values}")
            found.append(0 if values == (None,) else values.index(value))
        return tuple(found)


AXES = Axes._fields


def flag(name: str) -> str:
    """The flag of ``fairseq-eval-lm`` that sets an axis."""
    return "--" + name.replace("_", "-")
