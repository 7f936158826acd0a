"""The values of a setting that a ``--grid-...`` flag gives."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..flags import flag
from ..flags.bounds import Bounds

# Each value of an axis costs a pass over all scores, and a number for every token.
_MOST_VALUES = 256


def grid_flag(name: str) -> str:
    """``--grid-k`` of ``k``."""
    return "--grid-" + flag(name)[2:]


def read_values(
    name: str,
    words: Sequence[str],
    kind: type[Any],
    is_valid: Callable[[Any], bool],
    meaning: str,
    bounds: Bounds | None,
) -> tuple[Any, ...]:
    """The values, increasing, each once.

    Args:
        name: of the setting.
        words: values, separated by commas or spaces.
        kind: int or float.
        is_valid, meaning: what values may be, and how messages say it.
        bounds: of the flag ``name``.

    Raises:
        ValueError: naming the flag.
    """
    try:
        values = {kind(word) for word in re.split(r"[,\s]+", " ".join(words)) if word}
    except ValueError:
        values = set()
    if not values or not all(map(is_valid, values)):
        raise ValueError(f"{grid_flag(name)} takes {meaning}, not {_shortened(words)}")
    for problem in filter(None, map(bounds.problem, sorted(values)) if bounds else ()):
        raise ValueError(f"{grid_flag(name)} {problem}")
    if len(values) > _MOST_VALUES:
        raise ValueError(f"{grid_flag(name)}: {len(values):,} values, at most {_MOST_VALUES} can be tried")
    return tuple(sorted(values))


def _shortened(words: Sequence[str]) -> str:
    text = " ".join(words)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
