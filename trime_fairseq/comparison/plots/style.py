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


def styles(rows: Sequence[Row], drawn: Sequence[Row]) -> Mapping[tuple[str, str], Style]:
    """The style of each row that is drawn, by model and memory.

    Rows of a model share the colour, which is the same in all plots of a table.

    Args:
        rows: of the table.
        drawn: some of them, told apart by dashes and markers where they are of one model.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    trained = {row.model for row in rows if read_memory(row.memory).trained}
    colored = [model for model in models if model in trained]
    grey = [model for model in models if model not in trained]
    found = {}
    for model in models:
        palette, place = (_COLORS, colored) if model in trained else (_GREYS, grey)
        color = palette[place.index(model) % len(palette)]
        for number, row in enumerate(row for row in drawn if row.model == model):
            marks = (_DASHES[number % len(_DASHES)], _MARKERS[number % len(_MARKERS)])
            found[model, row.memory] = Style(color, *marks)
    return found
