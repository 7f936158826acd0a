"""The axes of a grid of settings."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..evaluation.config import MemoryConfig
from ..flags import flag

# The value of each used axis, by its name.
Point = dict[str, Any]


class Axes(NamedTuple):
    """Increasing values of the settings of the same names; (None,) where a setting has no meaning.

    With ``--knnlm`` ``softmax_temp`` is the temperature of the neighbours, and ``lmbda`` their weight.
    """

    softmax_temp: tuple[float, ...]
    mem_size: tuple[Any, ...]
    k: tuple[Any, ...]
    interp_temp: tuple[Any, ...]
    lmbda: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self))

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the axes that mean something."""
        return tuple(name for name, values in zip(AXES, self) if values != (None,))

    @property
    def tuned(self) -> tuple[str, ...]:
        """Names of the axes with several values."""
        return tuple(name for name, values in zip(AXES, self) if len(values) > 1)

    def values(self, name: str) -> tuple[Any, ...]:
        found: tuple[Any, ...] = getattr(self, name)
        return found

    def points(self) -> Iterator[Point]:
        """All points, the last axis fastest: the order of a flattened tensor of :attr:`shape`."""
        for values in itertools.product(*self):
            yield {name: value for name, value in zip(AXES, values) if value is not None}

    def position(self, config: MemoryConfig) -> tuple[int, ...]:
        """Where a configuration lies in the grid.

        Raises:
            ValueError: if it does not.
        """
        found = []
        for name, values in zip(AXES, self):
            value = getattr(config, name)
            if values != (None,) and value not in values:
                raise ValueError(f"{flag(name)} {value} is not in the grid {values}")
            found.append(0 if values == (None,) else values.index(value))
        return tuple(found)


AXES = Axes._fields


class MemoryAxes(NamedTuple):
    """Values for which memories are scored; empty where a memory is not used. All increase.

    Attributes:
        temperatures: of the memories in a softmax, by similarity.
        mem_sizes: tokens of the long-term memory; 0 is none.
        ks: numbers of neighbours.
        interp_temps: of the distribution of the neighbours alone (with ``--knnlm`` without ``--mode li`` this
            is what ``--softmax-temp`` sets).
    """

    temperatures: tuple[float, ...] = ()
    mem_sizes: tuple[int, ...] = ()
    ks: tuple[int, ...] = ()
    interp_temps: tuple[float, ...] = ()
