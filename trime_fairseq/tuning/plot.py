"""A picture of a grid: perplexity over its two most telling axes."""

import logging
import math
import os
from collections.abc import Sequence
from typing import Any

from ..flags import flag
from .axes import Axes, Point

logger = logging.getLogger(__name__)

# More cells than this are not labelled.
_LABELLED = 150


def plotted_axes(axes: Axes, points: Sequence[Point]) -> tuple[str, ...]:
    """Names of the one or two axes to plot: those with the most values, of equals those along which
    perplexity differs most around the best point; empty where nothing varies.

    Args:
        axes: the grid.
        points: all points with their ``ppl``, best first.
    """

    def key(name: str) -> tuple[int, float]:
        found = [ppl for ppl in through_best(axes, points, (name,)).values() if math.isfinite(ppl)]
        return len(axes.values(name)), max(found, default=0.0) - min(found, default=0.0)

    return tuple(sorted(axes.tuned, key=key, reverse=True)[:2])


def through_best(axes: Axes, points: Sequence[Point], names: Sequence[str]) -> dict[tuple[Any, ...], float]:
    """Perplexity by the values of the axes ``names``, all others at the best point."""
    best, fixed = points[0], [name for name in axes.used if name not in names]
    return {
        tuple(point[name] for name in names): point["ppl"]
        for point in points
        if all(point[name] == best[name] for name in fixed)
    }


def draw(axes: Axes, points: Sequence[Point], path: str) -> bool:
    """Writes the picture, a heat-map or with a single axis a line; whether there is one."""
    names = plotted_axes(axes, points)
    if not names:
        logger.info(f"TRIME: one point only, no {os.path.basename(path)}")
        return False
    try:
        import matplotlib
    except ImportError:
        logger.warning(f"TRIME: no {os.path.basename(path)}: it needs matplotlib (pip install matplotlib)")
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, plot = pyplot.subplots(figsize=(8, 5.5), layout="constrained")
    found = through_best(axes, points, names)
    best = points[0]
    if len(names) == 1:
        _draw_line(plot, axes.values(names[0]), found, best[names[0]])
        plot.set_ylabel("perplexity")
    else:
        _draw_map(figure, plot, [axes.values(name) for name in names], found, [best[name] for name in names])
        plot.set_ylabel(flag(names[1]))
    plot.set_xlabel(flag(names[0]))
    fixed = ", ".join(f"{flag(name)} {best[name]}" for name in axes.used if name not in names)
    plot.set_title(f"best perplexity {best['ppl']:.2f}" + (f", at {fixed}" if fixed else ""), fontsize=9)
    # A name of its own first: the file is there as a whole or not at all.
    figure.savefig(f"{path}.tmp", format="png", dpi=150)
    pyplot.close(figure)
    os.replace(f"{path}.tmp", path)
    return True


def _draw_line(plot: Any, values: Sequence[Any], found: dict[tuple[Any, ...], float], best: Any) -> None:
    plot.plot(values, [_shown(found[(value,)]) for value in values], marker="o")
    plot.plot([best], [found[(best,)]], marker="*", markersize=16, color="tab:red", linestyle="none")
    plot.grid(alpha=0.3)


def _draw_map(
    figure: Any,
    plot: Any,
    values: list[tuple[Any, ...]],
    found: dict[tuple[Any, ...], float],
    best: list[Any],
) -> None:
    across, up = values
    cells = [[_shown(found[(x, y)]) for x in across] for y in up]
    image = plot.imshow(cells, origin="lower", aspect="auto", cmap="viridis_r")
    figure.colorbar(image, label="perplexity")
    plot.set_xticks(range(len(across)), [str(value) for value in across])
    plot.set_yticks(range(len(up)), [str(value) for value in up])
    column, row = across.index(best[0]), up.index(best[1])
    from matplotlib.patches import Rectangle

    plot.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="tab:red", linewidth=3, clip_on=False
        )
    )
    if len(across) * len(up) > _LABELLED:
        return
    for y, line in enumerate(cells):
        for x, ppl in enumerate(line):
            shade = image.norm(ppl) if math.isfinite(ppl) else 0.0
            plot.text(
                *(x, y, f"{ppl:.2f}"),
                **{"ha": "center", "va": "center", "fontsize": 8},
                color="white" if shade > 0.5 else "black",
            )


def _shown(ppl: float) -> float:
    """Infinities would stretch the colours: nothing is drawn for them."""
    return ppl if math.isfinite(ppl) else math.nan
