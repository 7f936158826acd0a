"""Perplexity over the size of the long-term memory, tuned for each size."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..memories import read_memory
from ..table import Row
from .labels import Label, label_ends, name_of
from .style import styles

# More ticks than this are thinned out.
_MOST_TICKS = 10


def curve(row: Row) -> Mapping[int, tuple[float, float, float]]:
    """Perplexity on the test text by size: that of the mean over checkpoints, the least and the most."""
    losses: dict[int, list[float]] = {}
    for measured in row.of_checkpoints:
        for point in measured.by_size:
            losses.setdefault(point.mem_size, []).append(point.test_loss)
    return {
        size: (math.exp(sum(found) / len(found)), math.exp(min(found)), math.exp(max(found)))
        for size, found in sorted(losses.items())
    }


def curves(rows: Sequence[Row]) -> list[Row]:
    """The rows that have a line: of each model and kind of memory the one with the largest memory."""
    largest: dict[tuple[str, tuple[str, ...]], Row] = {}
    for row in rows:
        memory = read_memory(row.memory)
        kind = row.model, memory.parts
        if memory.size and (kind not in largest or memory.size > read_memory(largest[kind].memory).size):
            largest[kind] = row
    return list(largest.values())


def levels(rows: Sequence[Row]) -> list[Row]:
    """Rows without long-term memory, as far as no line begins with them. Models that were trained with memory
    are not shown without: they would stretch the axis."""
    lines = {(row.model, frozenset(read_memory(row.memory).parts) - {"long"}) for row in curves(rows)}
    trained = {row.model for row in rows if read_memory(row.memory).trained}
    return [
        row
        for row in rows
        if not read_memory(row.memory).size
        and (row.model, frozenset(read_memory(row.memory).parts)) not in lines
        and not (row.memory == "none" and row.model in trained)
    ]


def draw_size(plot: Any, rows: Sequence[Row]) -> bool:
    """Draws into axes; whether there is anything to draw."""
    lines = curves(rows)
    sizes = sorted({size for row in lines for size in curve(row)})
    if len(sizes) < 2:
        return False
    place = _places(sizes)
    style = styles(rows, [*lines, *levels(rows)])
    labels = []
    for row in levels(rows):
        color, ppl = style[row.model, row.memory].color, row.ppl.value
        ends = [place[sizes[0]], place[sizes[-1]]]
        plot.plot(ends, [ppl, ppl], color=color, linewidth=1, linestyle=":")
        labels.append(Label(name_of(row), ends[1], ppl, color))
    for row in lines:
        color, dashes, marker = style[row.model, row.memory]
        found = curve(row)
        x = [place[size] for size in found]
        means, lows, highs = zip(*found.values())
        plot.plot(x, means, color=color, linestyle=dashes, marker=marker, markersize=3.5, linewidth=1.6)
        if len(row.of_checkpoints) > 1:
            plot.fill_between(x, lows, highs, color=color, alpha=0.15, linewidth=0)
        for size in chosen(row):
            ring = {"markersize": 10, "markerfacecolor": "none", "markeredgewidth": 1.2}
            plot.plot(place[size], found[size][0], "o", color=color, **ring)
        labels.append(Label(name_of(row, with_size=False), x[-1], means[-1], color))
    ticks = sizes if len(sizes) <= _MOST_TICKS else [sizes[0], *sizes[1:][:: -(-len(sizes) // _MOST_TICKS)]]
    plot.set_xticks([place[size] for size in ticks], [f"{size:,}" for size in ticks])
    plot.set_xticks([], minor=True)
    plot.margins(x=0.02)
    plot.set_xlabel("tokens of long-term memory (0: only the model's input); ring: the tuned size")
    plot.set_ylabel("perplexity on the test text, tuned for each size")
    plot.grid(axis="y", alpha=0.25)
    label_ends(plot, labels)
    return True


def chosen(row: Row) -> set[int]:
    """The sizes of the tuned settings."""
    return {measured.setting.get("mem_size", 0) for measured in row.of_checkpoints}


def _places(sizes: Sequence[int]) -> dict[int, float]:
    """Logarithmic; 0 lies one step before the smallest."""
    smallest = min(size for size in sizes if size)
    return {size: math.log2(size) if size else math.log2(smallest) - 1 for size in sizes}
