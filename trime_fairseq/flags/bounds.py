"""Bounds of numbers, declared where the flag is: in the metadata of its field."""

import math
from dataclasses import dataclass
from typing import Any

from . import flag


@dataclass(frozen=True)
class Bounds:
    """The least and the most that a flag may be: ``field(default=0, metadata={"bounds": Bounds(0, 9)})``."""

    least: float
    most: float = math.inf

    def problem(self, value: float) -> str | None:
        """What is wrong with a value, such as "must be positive, not 0"; None if nothing is."""
        # NaN is in no bounds.
        if not value >= self.least:
            if self.least == 0:
                return f"must not be negative: {value}"
            if self.least == 1 or not value > 0:
                return f"must be positive, not {value}"
            return f"must be at least {_short(self.least)}, not {value}"
        if value > self.most:
            return f"must be at most {_short(self.most)}, not {value}"
        return None


# Seeds that NumPy takes.
SEED = Bounds(0, 2**32 - 1)
# Temperatures. Beyond these, float32 holds neither the quotients of scores nor their sums.
TEMPERATURE = Bounds(1e-10, 1e10)


def bounds_of(kind: Any, name: str) -> Bounds | None:
    """The bounds that a field of a dataclass declares; None if there are none, or no such field."""
    return _all_bounds(kind).get(name)


def check_bounds(kind: Any, values: Any) -> None:
    """Checks all fields of a dataclass that declare bounds.

    Args:
        kind: the dataclass.
        values: has attributes of the same names; what is not there or no number is not checked.

    Raises:
        ValueError: naming the flag.
    """
    for name, bounds in _all_bounds(kind).items():
        value = getattr(values, name, None)
        problem = bounds.problem(value) if isinstance(value, (int, float)) else None
        if problem:
            raise ValueError(f"{flag(name)} {problem}")


def check_argument(name: str, number: float, bounds: Bounds, error: type[ValueError] = ValueError) -> None:
    """Raises ``error``, naming the argument in backticks, for a number out of bounds."""
    problem = bounds.problem(number)
    if problem:
        raise error(f"`{name}` {problem}")


def _all_bounds(kind: Any) -> dict[str, Bounds]:
    """Bounds by the names of fields. A field that another base repeats without bounds keeps them."""
    found: dict[str, Bounds] = {}
    for base in reversed(kind.__mro__):
        for name, entry in base.__dict__.get("__dataclass_fields__", {}).items():
            if "bounds" in entry.metadata:
                found[name] = entry.metadata["bounds"]
    return found


def _short(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
