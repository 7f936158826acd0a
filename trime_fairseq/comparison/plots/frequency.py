"""The gain from memory by how often the target stands in the training text."""

from collections.abc import Sequence
from typing import Any

from ..frequencies import BINS
from ..table import Row
from .labels import Label, label_ends, name_of
from .style import styles

# A mean over fewer tokens says little.
LEAST_TOKENS = 50


def draw_frequency(plot: Any, rows: Sequence[Row], tokens: Sequence[int]) -> bool:
    """Draws into axes; whether there is anything to draw.

    Args:
        tokens: test tokens in each bin of frequency.
    """
    shown = [bin for bin, count in enumerate(tokens) if count >= LEAST_TOKENS]
    rows_shown = [row for row in rows if row.memory != "none"]
    if not shown or not rows_shown:
        return False
    style, labels = styles(rows, rows_shown), []
    plot.axhline(0, color="#404040", linewidth=0.8)
    for row in rows_shown:
        color, dashes, marker = style[row.model, row.memory]
        gains = [gain(row, bin, tokens) for bin in shown]
        plot.plot(
            range(len(shown)),
            gains,
            color=color,
            linestyle=dashes,
            marker=marker,
            markersize=3.5,
            linewidth=1.5,
        )
        labels.append(Label(name_of(row), len(shown) - 1, gains[-1], color))
    names = [f"{name(bin)}\n{tokens[bin] / sum(tokens):.0%}" for bin in shown]
    plot.set_xticks(range(len(shown)), names, fontsize=8)
    plot.margins(x=0.02)
    plot.set_xlabel("occurrences of the target in the training text; share of the test tokens")
    plot.set_ylabel("gain over the same model without memory,\nnats per token")
    plot.grid(axis="y", alpha=0.25)
    label_ends(plot, labels)
    return True


def gain(row: Row, bin: int, tokens: Sequence[int]) -> float:
    """Nats per token of a bin, a mean over checkpoints."""
    total = sum(measured.gain_by_frequency[bin] for measured in row.of_checkpoints)
    return total / len(row.of_checkpoints) / tokens[bin]


def name(bin: int) -> str:
    """Of a bin: its counts."""
    first = BINS[bin]
    last = BINS[bin + 1] - 1 if bin + 1 < len(BINS) else None
    if last is None:
        return f"{_short(first)} +"
    if last == 0:
        return "0"
    low, high = _short(first), _short(last)
    # 1–3k, not 1k–3k.
    return f"{low[:-1] if low[-1] in 'kM' and low[-1] == high[-1] else low}–{high}"


def _short(count: int) -> str:
    """Such as 29, 3k, 1M."""
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if count >= size - 1:
            return f"{round(count / size)}{letter}"
    return str(count)
