"""What came out of a grid: ranking, table, remarks, the command for the test set, the JSON file."""

import math
import shlex
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..evaluation.result import perplexity
from ..flags import flag
from .axes import Axes, Point
from .request import Request

# Values beyond which there is nothing.
_BOUNDS = {"mem_size": (0,), "k": (1,), "lmbda": (0.0, 1.0)}
# Of the evaluation's own result, what is true of all points.
_COMMON = (
    *("checkpoint", "checkpoint_written", "data", "subset", "sample_break_mode", "tokens_per_sample"),
    *("context_window", "left_out_samples", "left_out_tokens", "fp16", "post_process"),
    *("use_local", "use_external", "knnlm", "knn_keytype", "exact_tails", "dstore_filename", "indexfile"),
    *("probe", "knn_sim_func", "no_load_keys", "tokens", "seconds", "stage_seconds"),
)


def ranked(axes: Axes, nll: Tensor, tokens: int) -> list[Point]:
    """All points with ``loss`` (bits per token) and ``ppl``, best first; of equals the first in the grid.

    Args:
        axes: the grid.
        nll: sums of negative log-likelihoods in nats, of the shape of ``axes``.
        tokens: over how many tokens.
    """
    scale = 1 / max(tokens, 1) / math.log(2)
    losses = [value * scale for value in nll.flatten().tolist()]
    points = [{"loss": loss, "ppl": perplexity(loss), **point} for loss, point in zip(losses, axes.points())]
    return sorted(points, key=lambda point: math.inf if math.isnan(point["loss"]) else point["loss"])


def table(axes: Axes, points: Sequence[Point]) -> str:
    """Points as lines of a Markdown table."""
    rows = [["Loss (bits)", "Perplexity", *map(flag, axes.used)]]
    rows += [
        [f"{point['loss']:.4f}", f"{point['ppl']:.2f}", *(str(point[name]) for name in axes.used)]
        for point in points
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def distinct(axes: Axes, points: Sequence[Point]) -> list[Point]:
    """Without those that repeat another: the temperature of neighbours without weight has no effect."""
    first = axes.interp_temp[0]
    return [point for point in points if point.get("lmbda") != 0 or point.get("interp_temp") == first]


def edges(axes: Axes, best: Point) -> list[str]:
    """A remark for each axis whose best value is the first or last of its grid, not of what is possible."""
    remarks = []
    for name in axes.tuned:
        values, value = axes.values(name), best[name]
        if value in _BOUNDS.get(name, ()) or (name == "interp_temp" and not best["lmbda"]):
            continue
        if value in (values[0], values[-1]):
            where = "smallest" if value == values[0] else "largest"
            remarks.append(f"{flag(name)} {value} is the {where} of its grid: widen --grid-{flag(name)[2:]}")
    return remarks


def command_for_test(request: Request, best: Point, package: str) -> str:
    """The shell command that evaluates a point on the test set; ``package`` is this package's folder."""
    chosen = dict(best)
    if not request.knnlm and chosen.get("lmbda") == 0:
        for name in ("interp_temp", "lmbda"):
            del chosen[name]
    words = ["fairseq-eval-lm", *request.arguments(chosen, "test")]
    if not any(word == "--task" or word.startswith("--task=") for word in words):
        words += ["--task", "trime_language_modeling"]
    words += ["--user-dir", request.user_dir or package]
    return shlex.join(words)


def content(
    request: Request, points: Sequence[Point], evaluation: dict[str, Any], command: str
) -> dict[str, Any]:
    """Content of the file ``tuning.json``; ``evaluation`` is the result of one of the points."""
    return {
        **{name: evaluation[name] for name in _COMMON if name in evaluation},
        "flags": list(request.others),
        "grid": {name: list(request.axes.values(name)) for name in request.axes.used},
        "best": _finite(points[0]),
        "edges": edges(request.axes, points[0]),
        "test_command": command,
        "points": [_finite(point) for point in points],
    }


def _finite(point: Point) -> Point:
    """JSON has no infinity: null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in point.items()
    }
