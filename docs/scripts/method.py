"""Draws docs/images/method.svg: tokens and three memories in one softmax.

python docs/scripts/method.py
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

IMAGE = Path(__file__).resolve().parent.parent / "images" / "method.svg"
INK, GREY, PAPER = "#1f2933", "#5b6672", "#ffffff"
COLOURS = {"tokens": "#8d99a6", "local": "#e08e2b", "long": "#3a86c8", "external": "#4f9d69"}

# Name, what it is, entries as (context, token): the query is compared with each of them.
BANDS = [
    (
        "tokens",
        "output embeddings",
        "every type of the vocabulary",
        ["the", "Grant", "war", "Lincoln", "..."],
    ),
    (
        "local",
        "local memory",
        "earlier in this segment",
        ["spoke to President → Lincoln", "met in the year → 1861"],
    ),
    (
        "long",
        "long-term memory",
        "the segments before it",
        ["letter to President → Lincoln", "the end of the → war"],
    ),
    (
        "external",
        "external memory",
        "nearest keys of a datastore",
        ["elected President → Grant", "the wife of President → Lincoln"],
    ),
]
# Not measured: what the sum looks like, as lengths of bars.
SHARES = {
    "Lincoln": {"tokens": 0.9, "local": 1.4, "long": 1.1, "external": 0.9},
    "Grant": {"tokens": 0.8, "external": 0.9},
    "war": {"tokens": 0.35, "long": 0.3},
    "1861": {"tokens": 0.15, "local": 0.35},
    "the": {"tokens": 0.5},
}


def box(axes: Any, x: float, y: float, width: float, height: float, **style: Any) -> None:
    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, **{"linewidth": 0, **style}))


def arrow(axes: Any, begin: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 11, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(begin, end, color=colour, linewidth=1.3, **style))


def draw_bands(axes: Any) -> None:
    for row, (key, name, what, entries) in enumerate(BANDS):
        y, colour = 4.05 - 0.95 * row, COLOURS[key]
        box(axes, 0.2, y, 6.1, 0.8, facecolor=colour, alpha=0.16)
        box(axes, 0.2, y, 0.09, 0.8, facecolor=colour)
        axes.text(0.42, y + 0.49, name, color=INK, fontsize=9.5, fontweight="bold", va="center")
        axes.text(0.42, y + 0.23, what, color=GREY, fontsize=8, va="center")
        if len(entries) == 2:
            for line, entry in enumerate(entries):
                axes.text(2.85, y + 0.56 - 0.32 * line, entry, color=INK, fontsize=8.5, va="center")
        else:
            for column, entry in enumerate(entries):
                axes.text(2.85 + 0.78 * column, y + 0.4, entry, color=INK, fontsize=8.5, va="center")
        arrow(axes, (6.35, y + 0.4), (7.05, y + 0.4), colour)


def draw_softmax(axes: Any) -> None:
    box(axes, 7.1, 1.2, 0.62, 3.65, facecolor=INK)
    style = {
        "color": PAPER,
        "fontsize": 10,
        "fontweight": "bold",
        "rotation": 90,
        "ha": "center",
        "va": "center",
    }
    axes.text(7.41, 3.02, "one softmax", **style)
    arrow(axes, (7.77, 3.02), (8.1, 3.02), INK)


def draw_shares(axes: Any) -> None:
    axes.text(9.0, 4.75, "P(next token | context)", color=INK, fontsize=9.5, fontweight="bold", va="center")
    for row, (token, parts) in enumerate(SHARES.items()):
        y, x = 4.05 - 0.68 * row, 9.0
        axes.text(8.9, y + 0.17, token, color=INK, fontsize=9.5, ha="right", va="center")
        for key, length in parts.items():
            axes.barh(y + 0.17, 0.68 * length, left=x, height=0.36, color=COLOURS[key])
            x += 0.68 * length + 0.02


def draw_query(axes: Any) -> None:
    axes.text(0.2, 5.38, "context", color=GREY, fontsize=8.5, va="center")
    axes.text(1.02, 5.38, "… a few words for President", color=INK, fontsize=10.5, va="center")
    box(axes, 4.12, 5.22, 0.34, 0.32, facecolor="none", edgecolor=INK, linewidth=1)
    axes.text(4.29, 5.38, "?", color=INK, fontsize=10, ha="center", va="center")
    text = "the model's state of the context is compared with every row below"
    axes.text(4.75, 5.38, text, color=GREY, fontsize=8.5, va="center")


def main() -> None:
    # Text stays text; nothing in the file depends on when it was drawn.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "method"})
    figure = pyplot.figure(figsize=(9.2, 4.4), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 12.1)
    axes.set_ylim(0, 5.8)
    axes.axis("off")
    draw_query(axes)
    draw_bands(axes)
    draw_softmax(axes)
    draw_shares(axes)
    rule = "A memory is a pair: the state of an earlier context → the token that followed. It votes for it."
    axes.text(0.2, 0.62, rule, color=INK, fontsize=9, va="center")
    training = "TRIME trains with this softmax: the tokens of the batch itself are the memory."
    axes.text(0.2, 0.28, training, color=INK, fontsize=9, va="center")
    figure.savefig(IMAGE, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
