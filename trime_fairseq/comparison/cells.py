"""What stands in the cells of a table, before any markup: settings, numbers, footnotes."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation import MemoryConfig
from ..tuning import effective_values
from .bootstrap import COVERAGE, RESAMPLES, SEED, Interval
from .request import Comparison
from .result import CheckpointResult
from .table import Estimate, Results, Row

MINUS = "−"


def settings(row: Row) -> str:
    """The tuned settings, of each checkpoint where they differ."""
    return " / ".join(dict.fromkeys(_setting(measured.setting) for measured in row.of_checkpoints))


def _setting(setting: Mapping[str, Any]) -> str:
    """What has an effect: a weight of 0 makes other settings idle."""
    config = MemoryConfig(**setting)
    values = effective_values(config)
    words = []
    if config.joint_memory and "softmax_temp" in values:
        words.append(f"T {config.joint_temp:.3g}")
    if config.use_long and "mem_size" in values:
        words.append(f"{config.mem_size:,} tokens")
    if "cache_lmbda" in values:
        words.append(f"cache λ {config.cache_lmbda:.3g}")
    if "k" in values:
        words.append(f"{config.k:,} neighbour{'s' if config.k > 1 else ''}")
    if config.lmbda:
        words.append(f"kNN T {config.neighbor_temp:.3g}")
    if "lmbda" in values:
        words.append(f"kNN λ {config.lmbda:.3g}")
    return ", ".join(words)


def number(value: float, digits: int = 2) -> str:
    return f"{value:,.{digits}f}".replace("-", MINUS)


def between(interval: Interval) -> str:
    return f"{number(interval.low)} to {number(interval.high)}"


def change(estimate: Estimate | None) -> tuple[str, str]:
    """Of the perplexity, and its interval."""
    if estimate is None:
        return "baseline", ""
    value, low, high = (_signed(value) for value in (estimate.value, *estimate.interval))
    return f"{value}%", f"{low} to {high}"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value, 1)


def seeds(row: Row) -> str:
    """The perplexity of each checkpoint."""
    return " / ".join(number(ppl) for ppl in row.ppl_of_checkpoints)


class Remarks:
    """Limits that tuning reached: each once, with a letter for the rows that it belongs to."""

    def __init__(self, rows: Sequence[Row]) -> None:
        texts = dict.fromkeys(
            remark for row in rows for measured in row.of_checkpoints for remark in measured.remarks
        )
        self.letters = {text: _letter(position) for position, text in enumerate(texts)}

    def of(self, row: Row) -> list[str]:
        """The letters of a row."""
        return sorted(
            {self.letters[remark] for measured in row.of_checkpoints for remark in measured.remarks}
        )


def _letter(position: int) -> str:
    """a to z, aa, ab, ..."""
    first, last = divmod(position, 26)
    return (_letter(first - 1) if first else "") + chr(ord("a") + last)


def footnotes(comparison: Comparison, results: Results, command: str) -> list[str]:
    """What a reader of the table must know."""
    all_results: list[CheckpointResult] = [result for found in results.values() for result in found]
    first = all_results[0]
    name, memory = comparison.baseline
    seeds = max(len(found) for found in results.values())
    notes = [
        f"{sum(first.tokens):,} tokens of {comparison.test} in {len(first.tokens):,} samples. Settings are "
        f"tuned on {first.tune_tokens:,} tokens of {comparison.tune}, for every row by the same procedure. "
        f"Changes are of the perplexity, against {name}, {memory}.",
        f"Intervals: {COVERAGE:.0%}, percentiles of {RESAMPLES:,} resamples of whole samples (seed {SEED}), "
        "the same for all rows, so that changes are paired. They say what another text of this kind might "
        "give, not another training.",
    ]
    if seeds > 1:
        notes.append("Models with several checkpoints: the perplexity is that of the mean of their losses.")
    notes.append(
        "; ".join(
            ", ".join(dict.fromkeys(str(result.measured[key]) for result in all_results))
            for key in ("date", "hardware", "versions")
        )
        + "."
    )
    return [*notes, f"Command: {command}"]
