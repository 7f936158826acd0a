"""Labels at the ends of lines, in the right margin, moved apart where they would overlap."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..table import Row

_LONGEST = 44
# From baseline to baseline, in font sizes.
_LINE_HEIGHT = 1.3


class Label(NamedTuple):
    """Text for the end (x, y) of a line, in data coordinates."""

    text: str
    x: float
    y: float
    color: str


def spread(places: Sequence[float], height: float, low: float, high: float) -> list[float]:
    """Places that are at least ``height`` apart, as near to the wanted ones as least squares allow.

    They keep their order. Where there is room for all, they lie in [low, high].
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    # With i * height taken off, "apart" is "increasing": neighbours that are not are pooled.
    pools: list[list[float]] = []
    for rank, i in enumerate(order):
        pools.append([places[i] - rank * height])
        while len(pools) > 1 and _mean(pools[-2]) >= _mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    offsets = [_mean(pool) for pool in pools for _ in pool]
    room = max(low, high - (len(places) - 1) * height)
    found = [0.0] * len(places)
    for rank, i in enumerate(order):
        found[i] = min(max(offsets[rank], low), room) + rank * height
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def name_of(row: Row, with_size: bool = True) -> str:
    """Model and memory."""
    words = [word for word in row.memory.split() if with_size or not word.isdecimal()]
    return f"{row.model}, {'no memory' if row.memory == 'none' else ' '.join(words)}"


def literal(text: str) -> str:
    """A text that leaves room for the plot, and whose dollar signs are no formulas."""
    short = text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"
    return short.replace("$", r"\$")


def label_ends(plot: Any, labels: Sequence[Label], size: float = 8.5) -> None:
    """Writes the labels to the right of a plot, each joined to its line by a thin one.

    Call last: limits of the axes and the other contents of the figure must be known.
    """
    figure = plot.figure
    texts = [
        plot.annotate(
            literal(label.text),
            xy=(label.x, label.y),
            xytext=(1.03, 0.5),
            textcoords="axes fraction",
            color=label.color,
            fontsize=size,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                # To the middle of the text's left edge, not to a box around it.
                "relpos": (0, 0.5),
                "patchA": None,
                "color": label.color,
                "linewidth": 0.7,
                "alpha": 0.6,
                "shrinkA": 1,
                "shrinkB": 1,
            },
        )
        for label in labels
    ]
    # Their widths decide how high the axes are.
    figure.draw_without_rendering()
    box = plot.get_window_extent()
    # Many labels are smaller ones.
    size = min(size, box.height * 72 / figure.dpi / _LINE_HEIGHT / max(len(labels), 1))
    height = size * _LINE_HEIGHT * figure.dpi / 72 / box.height
    wanted = [
        float(plot.transAxes.inverted().transform(plot.transData.transform((label.x, label.y)))[1])
        for label in labels
    ]
    for text, y in zip(texts, spread(wanted, height, 0.0, 1.0)):
        text.set_position((1.03, y))
        text.set_fontsize(size)
