"""Measures the rows of one checkpoint: a pass over the tuning subset, one over the test subset."""

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import fields

from ..evaluation import EvaluationResult, MemoryConfig
from ..evaluation.axes import MemoryAxes
from ..tuning import Record, Setting, default_axes, tune
from ..tuning.report import remarks
from .checkpoint import Checkpoint
from .frequencies import Counts
from .hardware import hardware, today, versions
from .memories import Memory
from .result import CheckpointResult, TunedRow, TunedRows, TunedSetting
from .rows import GroupedText, row_result

# Arguments of ``fairseq-eval-lm``, families of settings, values for which to score.
Pass = tuple[Sequence[str], Sequence[MemoryConfig], MemoryAxes]
Recorder = Callable[[Sequence[str], Sequence[MemoryConfig], MemoryAxes], tuple[Record, EvaluationResult]]
Checker = Callable[[Sequence[str], Sequence[MemoryConfig], MemoryAxes], None]


def tuning_pass(checkpoint: Checkpoint) -> Pass:
    """The pass over the tuning subset that serves all rows of a checkpoint."""
    families = list(checkpoint.families().values())
    searches = any(family.searches for family in families)
    return checkpoint.arguments(checkpoint.comparison.tune, searches), families, default_axes(families)


def tune_rows(checkpoint: Checkpoint, recorder: Recorder) -> TunedRows:
    """Tunes every row of a checkpoint, in one pass over the tuning subset.

    Args:
        recorder: runs the model.
    """
    started = time.monotonic()
    record, _ = recorder(*tuning_pass(checkpoint))
    rows = tuple(
        _named(checkpoint, memory, family, record) for memory, family in checkpoint.families().items()
    )
    return TunedRows(rows, record.tokens, round(time.monotonic() - started, 1))


def evaluate_rows(
    checkpoint: Checkpoint, tuned: TunedRows, recorder: Recorder, counts: tuple[Counts, str]
) -> CheckpointResult:
    """Evaluates every row as it was tuned, in one pass over the test subset.

    Args:
        tuned: of :func:`tune_rows`.
        recorder: runs the model.
        counts: of :func:`trime_fairseq.comparison.frequencies.training_counts`.
    """
    started = time.monotonic()
    settings = [setting for row in tuned.rows for setting in (row.best, *row.by_size)]
    configs = [MemoryConfig(**setting.setting) for setting in settings]
    arguments = checkpoint.arguments(checkpoint.comparison.test, any(config.searches for config in configs))
    record, _ = recorder(arguments, configs, MemoryAxes.of(configs))
    text = GroupedText.of(record, counts[0])
    rows = tuple(row_result(row, record, text) for row in tuned.rows)
    for row in rows:
        _check_finite(checkpoint, row.memory, [*row.nll, *(point.test_loss for point in row.by_size)])
    return CheckpointResult(
        text=text.hash,
        tokens=text.tokens,
        tune_tokens=tuned.tokens,
        tokens_by_frequency=text.tokens_by_frequency,
        counted_in=counts[1],
        rows=rows,
        measured={
            "date": today(),
            "hardware": hardware("--cpu" in checkpoint.model.evaluation),
            "versions": versions(),
            "seconds_tuning": tuned.seconds,
            "seconds_test": round(time.monotonic() - started, 1),
        },
    )


def _check_finite(checkpoint: Checkpoint, memory: str, losses: Sequence[float]) -> None:
    """Raises ValueError for a loss that is NaN or infinite, so that it never becomes a row."""
    if all(map(math.isfinite, losses)):
        return
    if any(map(math.isnan, losses)):
        raise ValueError(f"{checkpoint}, {memory}: the loss is not finite: is {checkpoint.path} damaged?")
    raise ValueError(
        f"{checkpoint}, {memory}: the loss is not finite: a token has probability 0, with these settings "
        f"(or is {checkpoint.path} damaged?)"
    )


def _named(checkpoint: Checkpoint, memory: Memory, family: MemoryConfig, record: Record) -> TunedRow:
    """Computes a row; errors name it."""
    try:
        row = _tuned(memory, family, record)
    except ValueError as error:
        raise ValueError(f"{checkpoint}, {memory}: {error}") from error
    _check_finite(checkpoint, row.memory, [row.best.loss, *(found.loss for found in row.by_size)])
    return row


def _tuned(memory: Memory, family: MemoryConfig, record: Record) -> TunedRow:
    if memory == Memory():
        # Nothing to tune.
        loss = float((record.token_lse - record.target_logit).double().mean())
        return TunedRow(str(memory), TunedSetting(setting_of(family), loss), (), ())
    found = tune(record, family)
    by_size = tuple(map(_tuned_setting, found.best_by("mem_size").values()))
    return TunedRow(str(memory), _tuned_setting(found.best), by_size, tuple(map(footnote, remarks(found))))


def footnote(remark: str) -> str:
    """A remark of tuning, for a table: there are no grids to widen here, and what rows have in common is one
    footnote."""
    remark = remark.partition(": widen --grid")[0]
    return re.sub(r"^[\d,]+ of [\d,]+ combinations", "not all combinations", remark)


def _tuned_setting(setting: Setting) -> TunedSetting:
    return TunedSetting(setting_of(setting.config), setting.loss * math.log(2))


def setting_of(config: MemoryConfig) -> dict[str, object]:
    """The fields that are not the defaults."""
    default = MemoryConfig()
    names = [entry.name for entry in fields(MemoryConfig) if entry.name != "_name"]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(default, name)}
