"""A line per row: shares of the memories, and the gain by whether the target occurs in the memory."""

from collections.abc import Sequence
from typing import Any

from ..contributions import PARTS
from ..table import Row
from .labels import literal, name_of
from .style import styles

# Of the bar, of the number on it.
_PART_COLORS = {
    "local": ("#0072B2", "white"),
    "long": ("#56B4E9", "black"),
    "external": ("#E69F00", "black"),
    "neighbours": ("#CC79A7", "black"),
}
_PART_NAMES = {
    "local": "local memory",
    "long": "long-term memory",
    "external": "neighbours in the softmax",
    "neighbours": "neighbours' own distribution",
}
# Narrower parts have no number.
_LEAST_NUMBERED = 0.03


def with_memory(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.memory != "none"]


def draw_shares(plot: Any, rows: Sequence[Row]) -> bool:
    """Which part of the target's probability comes from each memory; whether there is anything to draw."""
    shown = with_memory(rows)
    if not shown:
        return False
    used = [part for part in PARTS if any(row.shares.get(part) for row in shown)]
    for y, row in enumerate(shown):
        left = 0.0
        for part in used:
            share = row.shares.get(part, 0.0)
            color, on_it = _PART_COLORS[part]
            plot.barh(y, share, left=left, height=0.62, color=color)
            if share >= _LEAST_NUMBERED:
                plot.text(
                    left + share / 2,
                    y,
                    f"{100 * share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=on_it,
                )
            left += share
        plot.text(left + 0.005, y, f"{left:.0%}", ha="left", va="center", fontsize=8, color="#404040")
    handles = [_patch(_PART_COLORS[part][0]) for part in used]
    _legend_above(plot, handles, [_PART_NAMES[part] for part in used], ncols=2, handlelength=1)
    plot.set_xlim(0, None)
    plot.margins(x=0.12)
    plot.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    plot.set_xlabel("share of the target's probability, mean over test tokens")
    _name_rows(plot, shown)
    return True


def draw_occurrence(plot: Any, rows: Sequence[Row], tokens: int) -> bool:
    """The gain over targets that are in the memory and over the others; whether there is anything to draw.

    Args:
        tokens: of the test text.
    """
    shown = with_memory(rows)
    if not shown:
        return False
    style = styles(rows, shown)
    plot.axvline(0, color="#404040", linewidth=0.8)
    for y, row in enumerate(shown):
        color = style[row.model, row.memory].color
        inside, outside, share = occurrence(row, tokens)
        plot.plot([outside, inside], [y, y], color=color, linewidth=1.2, alpha=0.5, zorder=1)
        plot.plot([inside], [y], "o", color=color, markersize=7)
        plot.plot([outside], [y], "o", color=color, markersize=7, markerfacecolor="white")
        overall = share * inside + (1 - share) * outside
        plot.plot([overall], [y], "|", color=color, markersize=14, markeredgewidth=2)
        plot.annotate(
            f"{share:.0%}",
            (inside, y),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=color,
        )
    handles = [_marker("o", "#404040"), _marker("o", "white"), _marker("|", "#404040")]
    names = ["target in the memory (share of the tokens)", "target not in it", "all tokens"]
    _legend_above(plot, handles, names, ncols=3, handletextpad=0.3)
    plot.margins(x=0.1)
    plot.set_xlabel("gain over the same model without memory, nats per token")
    plot.grid(axis="x", alpha=0.25)
    _name_rows(plot, shown)
    return True


def occurrence(row: Row, tokens: int) -> tuple[float, float, float]:
    """Gain per token where the target is in the memory, where it is not, and the share of the former."""
    count = len(row.of_checkpoints)
    inside_tokens = sum(measured.tokens_inside for measured in row.of_checkpoints)
    outside_tokens = count * tokens - inside_tokens
    inside = sum(measured.gain_inside for measured in row.of_checkpoints) / max(inside_tokens, 1)
    outside = sum(measured.gain_outside for measured in row.of_checkpoints) / max(outside_tokens, 1)
    return inside, outside, inside_tokens / (count * tokens)


def _legend_above(plot: Any, handles: Sequence[Any], names: Sequence[str], **settings: Any) -> None:
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
    plot.legend(handles, names, frameon=False, fontsize=8.5, **place, **settings)


def _name_rows(plot: Any, rows: Sequence[Row]) -> None:
    names = [literal(name_of(row)) for row in rows]
    plot.set_yticks(range(len(rows)), names, fontsize=8.5)
    plot.set_ylim(len(rows) - 0.4, -0.6)
    for side in ("left", "right", "top"):
        plot.spines[side].set_visible(False)
    plot.tick_params(axis="y", length=0)


def _patch(color: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=color)


def _marker(marker: str, face: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], marker=marker, color="#404040", markerfacecolor=face, linestyle="none", markersize=7
    )
