"""Bounds of numbers, declared where the flag is: in the metadata of its field."""

import math
from dataclasses import dataclass, fields
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


# Of whatever scores are divided by. Beyond these, float32 holds neither quotients nor their sums.
TEMPERATURE = Bounds(1e-10, 1e10)


def bounds_of(kind: Any, name: str) -> Bounds | None:
    """The bounds that a field of a dataclass declares; None if there are none, or no such field."""
    entry = getattr(kind, "__dataclass_fields__", {}).get(name)
    return None if entry is None else entry.metadata.get("bounds")


def check_bounds(kind: Any, values: Any) -> None:
    """Checks all fields of a dataclass that declare bounds.

    Args:
        kind: the dataclass.
        values: has attributes of the same names; what is not there or no number is not checked.

    Raises:
        ValueError: naming the flag.
    """
    for entry in fields(kind):
        bounds = entry.metadata.get("bounds")
        value = getattr(values, entry.name, None)
        if bounds is None or not isinstance(value, (int, float)):
            continue
        problem = bounds.problem(value)
        if problem:
            raise ValueError(f"{flag(entry.name)} {problem}")


def _short(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
