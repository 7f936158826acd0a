"""What tuning found: table, remarks, the command for the test set, the JSON file."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..evaluation.config import MemoryConfig
from ..files import without_infinity
from ..flags import flag
from .families import effective_values, flags_of
from .request import Request
from .search import Setting, Tuned

# Of the evaluation's own result, what is true of all settings.
_COMMON = (
    *("checkpoint", "checkpoint_written", "data", "subset", "sample_break_mode", "tokens_per_sample"),
    *("context_window", "left_out_samples", "left_out_tokens", "fp16", "post_process", "knn_keytype"),
    *("dstore_filename", "indexfile", "probe", "knn_sim_func", "no_load_keys"),
    *("tokens", "seconds", "stage_seconds"),
)
# Of a family, what its settings have in common.
_OF_FAMILY = ("use_local", "use_external", "mode", "knnlm", "use_interp", "exact_tails")
# What it means if these values are the best.
_MEANING: dict[tuple[str, float], str] = {
    ("mem_size", 0): "a long-term memory does not help",
    ("k", 1): "more neighbours do not help",
    ("lmbda", 0): "the neighbours do not help",
    ("lmbda", 1): "the neighbours need no model",
    ("cache_lmbda", 0): "the memory does not help",
    ("cache_lmbda", 1): "the memory needs no model",
}


def table(tuned: Tuned, settings: Sequence[Setting]) -> str:
    """Settings as lines of a Markdown table; a dash where a weight of 0 makes a value meaningless."""
    names = columns(tuned)
    rows = [["Loss (bits)", "Perplexity", *map(flag, names)]]
    for setting in settings:
        values = effective_values(setting.config)
        cells = [f"{values[name]:.10g}" if name in values else "-" for name in names]
        rows.append([f"{setting.loss:.4f}", f"{setting.ppl:.2f}", *cells])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def columns(tuned: Tuned) -> tuple[str, ...]:
    """Names of the settings that were tuned."""
    return (*tuned.values, *tuned.family.weight_names)


def remarks(tuned: Tuned) -> list[str]:
    """A line for each best value that is the first or last of its axis, and where settings took turns."""
    found = []
    in_effect = effective_values(tuned.best.config)
    for name, values in tuned.values.items():
        if name in in_effect and len(values) > 1 and in_effect[name] in (values[0], values[-1]):
            found.append(_at_end(name, in_effect[name], lowest=in_effect[name] == values[0]))
    for name in tuned.family.weight_names:
        end = _end_of_weights(in_effect[name])
        if getattr(tuned.family, name) is None and end is not None:
            found.append(f"{flag(name)} {in_effect[name]:.10g}: {_MEANING[name, end]}")
    without_loss = sum(math.isnan(setting.loss) for setting in tuned.tried.values())
    if without_loss:
        found.append(f"the loss of {without_loss:,} settings is no number; they are left out")
    if len(tuned.tried) < tuned.combinations:
        found.append(
            f"{len(tuned.tried):,} of {tuned.combinations:,} combinations were tried: settings took turns, "
            "from the best of the others, until nothing changed"
        )
    return found


def _end_of_weights(weight: float) -> int | None:
    """The 0 or 1 that a weight is, or is as near to as it may be."""
    return 0 if weight == 0 else 1 if weight > 0.99999 else None


def _at_end(name: str, value: float, lowest: bool) -> str:
    if (name, value) in _MEANING:
        return f"{flag(name)} {value:g}: {_MEANING[name, value]}"
    if name in ("mem_size", "k") and not lowest:
        return f"{flag(name)} {value:g} is the most that was allowed: more may be better"
    end = "lowest" if lowest else "highest"
    return f"{flag(name)} {value:g} is the {end} that was tried: widen --grid-{flag(name)[2:]}"


def command_for_test(request: Request, best: MemoryConfig, package: str) -> str:
    """The shell command that evaluates a setting on the test set; ``package`` is this package's folder."""
    if best.use_interp and best.lmbda == 0:
        best = replace(best, use_interp=False, lmbda=None, interp_temp=1.0)
    words = ["fairseq-eval-lm", *request.others, "--gen-subset", "test", *flags_of(best)]
    if not any(word == "--task" or word.startswith("--task=") for word in words):
        words += ["--task", "trime_language_modeling"]
    words += ["--user-dir", request.user_dir or package]
    return shlex.join(words)


def content(request: Request, tuned: Tuned, evaluation: dict[str, Any], command: str) -> dict[str, Any]:
    """Content of the file ``tuning.json``; ``evaluation`` is the result of the model without memory."""
    return {
        **{name: evaluation[name] for name in _COMMON if name in evaluation},
        **{name: getattr(request.family, name) for name in _OF_FAMILY},
        "flags": list(request.others),
        "values": {name: list(values) for name, values in tuned.values.items()},
        "without_memory": _row(tuned.without_memory),
        "best": _row(tuned.best),
        "remarks": remarks(tuned),
        "test_command": command,
        "by_size": [_row(setting) for setting in tuned.best_by("mem_size").values()],
        "settings": [_row(setting) for setting in tuned.settings],
    }


def _row(setting: Setting) -> dict[str, Any]:
    return without_infinity({"loss": setting.loss, "ppl": setting.ppl, **effective_values(setting.config)})
