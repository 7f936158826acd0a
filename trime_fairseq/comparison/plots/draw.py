"""Writes all plots of a comparison, where matplotlib is there."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from ...files import whole_file
from ..result import CheckpointResult
from ..table import Row
from .bars import draw_occurrence, draw_shares, with_memory
from .frequency import draw_frequency
from .size import draw_size

logger = logging.getLogger(__name__)

PLOTS = ("size", "frequency", "occurrence", "shares")
_WIDTH, _HEIGHT = 8.6, 4.6


def draw(rows: Sequence[Row], result: CheckpointResult, folder: str) -> list[str]:
    """Writes a file for each of :data:`PLOTS`, as far as rows have such memories.

    Args:
        rows: of the table.
        result: of any checkpoint; the test text is the same for all.

    Returns:
        The files.
    """
    try:
        import matplotlib
    except ImportError:
        logger.warning("TRIME: no plots: they need matplotlib (pip install matplotlib)")
        return []
    matplotlib.use("Agg")
    from matplotlib import pyplot

    of_rows = 1.1 + 0.36 * len(with_memory(rows))
    drawings: dict[str, tuple[float, Callable[[Any], bool]]] = {
        "size": (_HEIGHT, lambda plot: draw_size(plot, rows)),
        "frequency": (_HEIGHT, lambda plot: draw_frequency(plot, rows, result.tokens_by_frequency)),
        "occurrence": (of_rows, lambda plot: draw_occurrence(plot, rows, sum(result.tokens))),
        "shares": (of_rows, lambda plot: draw_shares(plot, rows)),
    }
    written = []
    for name in PLOTS:
        height, drawing = drawings[name]
        path = os.path.join(folder, f"{name}.png")
        figure, plot = pyplot.subplots(figsize=(_WIDTH, height), layout="constrained")
        for side in ("top", "right"):
            plot.spines[side].set_visible(False)
        if drawing(plot):
            with whole_file(path, "wb") as file:
                # Without a version or date of the library: the same results give the same bytes.
                figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
            written.append(path)
        elif os.path.exists(path):
            os.unlink(path)  # of an earlier comparison
        pyplot.close(figure)
    return written
