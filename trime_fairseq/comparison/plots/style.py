"""Colours by model; greys for models whose memories need no training."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..memories import read_memory
from ..table import Row

# Distinct also for readers who do not see red and green apart (Okabe and Ito).
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_GREYS = ("#404040", "#7a7a7a", "#a0a0a0")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))
_MARKERS = "osD^vPX"


class Style(NamedTuple):
    """How a row is drawn."""

    color: str
    dashes: object
    marker: str


def styles(rows: Sequence[Row]) -> Mapping[tuple[str, str], Style]:
    """The style of each row, by model and memory: rows of a model share the colour."""
    memories: dict[str, list[str]] = {}
    for row in rows:
        memories.setdefault(row.model, []).append(row.memory)
    trained = [model for model, names in memories.items() if any(read_memory(name).trained for name in names)]
    found = {}
    for model, names in memories.items():
        palette = _COLORS if model in trained else _GREYS
        place = (
            trained.index(model)
            if model in trained
            else [m for m in memories if m not in trained].index(model)
        )
        for number, name in enumerate(names):
            found[model, name] = Style(
                palette[place % len(palette)],
                _DASHES[number % len(_DASHES)],
                _MARKERS[number % len(_MARKERS)],
            )
    return found
