"""A picture of what tuning found: the best perplexity with each value of each setting."""

import logging
import math
import os
from typing import Any

from ..files import whole_file
from ..flags import flag
from .search import Tuned

logger = logging.getLogger(__name__)

# What is worse than the best by more than so many times the gain of the memories is cut off.
_GAINS = 1.5
_LABELS = 9
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
    with whole_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)
    pyplot.close(figure)
    return True


def _draw_panel(panel: Any, tuned: Tuned, name: str) -> None:
    best = tuned.best_by(name)
    places = _places(list(best))
    ppl = [_shown(setting.ppl) for setting in best.values()]
    panel.plot(places, ppl, marker="o", markersize=4, color=_COLOUR)
    value = min(best, key=lambda found: best[found].loss)
    where = (places[list(best).index(value)], best[value].ppl)
    panel.plot(*where, marker="*", markersize=15, color=_BEST, linestyle="none")
    below = {"xytext": (0, -16), "textcoords": "offset points", "ha": "center"}
    panel.annotate(f"{value:g}", where, color=_BEST, **below)
    plain = tuned.without_memory.ppl
    if math.isfinite(plain):
        panel.axhline(plain, color=_PLAIN, linestyle="--", linewidth=1)
        at_the_right = {"xycoords": ("axes fraction", "data"), "xytext": (0, 4), "ha": "right"}
        panel.annotate(
            *("without memory", (0.98, plain)),
            **{**at_the_right, "textcoords": "offset points", "color": _PLAIN, "fontsize": 9},
        )
    panel.set_xlabel(flag(name))
    panel.set_xticks(*_ticks(list(best), places))
    panel.grid(alpha=0.25)


def _places(values: list[float]) -> list[float]:
    """Where values stand: equal ratios at equal distances, and 0 one step before the others."""
    logs = [math.log2(value) for value in values if value > 0]
    return [logs[0] - 1] * (len(values) - len(logs)) + logs if logs else [0.0]


def _ticks(values: list[float], places: list[float]) -> tuple[list[float], list[str]]:
    """At most so many labels as have room; powers of two if those are among the values."""
    found = list(zip(places, values))
    powers = [(place, value) for place, value in found if value == 0 or math.log2(value).is_integer()]
    if len(powers) > 2 and len(found) > _LABELS:
        found = powers
    step = math.ceil(len(found) / _LABELS)
    kept = found[::step]
    return [place for place, _ in kept], [f"{value:g}" for _, value in kept]


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
