"""A picture of what tuning found: the best perplexity with each value of each setting."""

import logging
import math
import os
from typing import Any

from ..flags import flag
from .search import Tuned

logger = logging.getLogger(__name__)

# What is worse than the best by more than so many times the gain of the memories is cut off.
_GAINS = 1.5
_COLOUR, _BEST, _PLAIN = "tab:blue", "tab:red", "0.4"


def draw(tuned: Tuned, path: str) -> bool:
    """Writes the picture, a panel for each setting with several values; whether there is one."""
    names = [name for name, values in tuned.values.items() if len(values) > 1]
    if not names:
        logger.info(f"TRIME: no setting with several values, no {os.path.basename(path)}")
        return False
    try:
        import matplotlib
    except ImportError:
        logger.warning(f"TRIME: no {os.path.basename(path)}: it needs matplotlib (pip install matplotlib)")
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        *(1, len(names)),
        figsize=(4.2 * len(names) + 0.8, 4.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, name in zip(panels[0], names):
        _draw_panel(panel, tuned, name)
    panels[0][0].set_ylabel("perplexity, all other settings at their best")
    panels[0][0].set_ylim(*_limits(tuned))
    figure.suptitle(f"best perplexity {tuned.best.ppl:.2f}, without memory {tuned.without_memory.ppl:.2f}")
    # A name of its own first: the file is there as a whole or not at all.
    figure.savefig(f"{path}.tmp", format="png", dpi=150)
    pyplot.close(figure)
    os.replace(f"{path}.tmp", path)
    return True


def _draw_panel(panel: Any, tuned: Tuned, name: str) -> None:
    best = tuned.best_by(name)
    panel.plot(
        list(best),
        [_shown(setting.ppl) for setting in best.values()],
        marker="o",
        markersize=4,
        color=_COLOUR,
    )
    value = min(best, key=lambda found: best[found].loss)
    panel.plot([value], [_shown(best[value].ppl)], marker="*", markersize=15, color=_BEST, linestyle="none")
    panel.annotate(
        f"{value:g}", (value, best[value].ppl), (0, -16), textcoords="offset points", color=_BEST, ha="center"
    )
    plain = tuned.without_memory.ppl
    if math.isfinite(plain):
        panel.axhline(plain, color=_PLAIN, linestyle="--", linewidth=1)
        panel.annotate(
            *("without memory", (0.98, plain), (0, 4)),
            **{"xycoords": ("axes fraction", "data"), "textcoords": "offset points"},
            **{"color": _PLAIN, "ha": "right", "fontsize": 9},
        )
    panel.set_xlabel(flag(name))
    _scale(panel, list(best))
    panel.grid(alpha=0.25)


def _scale(panel: Any, values: list[float]) -> None:
    """Powers of two at equal distances, with their labels; room for a size of 0."""
    smallest = min(value for value in values if value > 0) if max(values) > 0 else 1
    panel.set_xscale("symlog", base=2, linthresh=smallest) if 0 in values else panel.set_xscale("log", base=2)
    step = math.ceil(len(values) / 8)
    ticks = values[::step]
    panel.set_xticks(ticks, [f"{value:g}" for value in ticks])
    panel.set_xticks([], minor=True)


def _limits(tuned: Tuned) -> tuple[float, float]:
    """From a little below the best to a little above the model alone, or all where memories gain nothing."""
    best, plain = tuned.best.ppl, tuned.without_memory.ppl
    gain = plain - best
    if not (math.isfinite(gain) and gain > 0.001 * best):
        gain = 0.1 * best
    return best - 0.25 * gain, best + _GAINS * gain


def _shown(ppl: float) -> float:
    """Nothing is drawn for infinities."""
    return ppl if math.isfinite(ppl) else math.nan
