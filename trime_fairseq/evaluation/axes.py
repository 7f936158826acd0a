"""The axes along which memories are scored."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from .config import MemoryConfig

Number = TypeVar("Number", int, float)


class MemoryAxes(NamedTuple):
    """Values for which memories are scored, increasing; empty where a memory is not used.

    Attributes:
        temperatures: of the memories in a softmax.
        mem_sizes: tokens of the long-term memory; 0 is none.
        ks: numbers of neighbours.
        interp_temps: of the distribution of the neighbours alone, :attr:`MemoryConfig.neighbor_temp`.
    """

    temperatures: tuple[float, ...] = ()
    mem_sizes: tuple[int, ...] = ()
    ks: tuple[int, ...] = ()
    interp_temps: tuple[float, ...] = ()

    @classmethod
    def of(cls, configs: Sequence[MemoryConfig]) -> "MemoryAxes":
        """Just the values of these settings."""
        return cls(
            _increasing(config.joint_temp for config in configs if config.joint_memory),
            _increasing(config.mem_size for config in configs if config.use_long and config.joint_memory),
            _increasing(config.k for config in configs if config.searches),
            _increasing(config.neighbor_temp for config in configs if "lmbda" in config.weight_names),
        )


def _increasing(values: Iterable[Number]) -> tuple[Number, ...]:
    return tuple(sorted(set(values)))
