"""The table as Markdown, LaTeX, CSV and JSON."""

import csv
import io
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .bootstrap import COVERAGE, RESAMPLES, SEED
from .cells import MINUS, Remarks, between, change, number, seeds, settings
from .contributions import PARTS
from .frequencies import BINS
from .request import Comparison
from .table import Estimate, Results, Row

_TEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    MINUS: "$-$",
    "λ": r"$\lambda$",
    # Otherwise one dash.
    "--": "-{}-",
}
_TEX_LETTER = re.compile("|".join(map(re.escape, _TEX)))
_MARKDOWN_LETTER = re.compile(r"([\\|`*_<>\[\]])")


def _headings(rows: Sequence[Row]) -> list[str]:
    of_seeds = ["each checkpoint"] if _has_seeds(rows) else []
    head = ["model", "memory", "tuned settings", "tuning ppl", "test ppl", f"{COVERAGE:.0%} interval"]
    return [*head, *of_seeds, "change", f"{COVERAGE:.0%} interval", "mass"]


def _cells(row: Row, has_seeds: bool) -> list[str]:
    """Without markup."""
    of_seeds = [seeds(row) if len(row.ppl_of_checkpoints) > 1 else ""] if has_seeds else []
    values = [number(row.tuned_ppl), number(row.ppl.value), between(row.ppl.interval)]
    return [
        *(row.model, row.memory, settings(row)),
        *values,
        *of_seeds,
        *change(row.change),
        number(row.mass) if row.mass else "",
    ]


def _has_seeds(rows: Sequence[Row]) -> bool:
    return any(len(row.ppl_of_checkpoints) > 1 for row in rows)


def escape_markdown(text: str) -> str:
    """Text that stands in a cell as it is."""
    return _MARKDOWN_LETTER.sub(r"\\\1", " ".join(text.split()))


def escape_tex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return _TEX_LETTER.sub(lambda found: _TEX[found[0]], " ".join(text.split()))


def markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """A table with its footnotes."""
    remarks, has_seeds = Remarks(rows), _has_seeds(rows)
    headings = _headings(rows)
    lines = [headings, [":--"] * 3 + ["--:"] * (len(headings) - 3)]
    for row in rows:
        cells = list(map(escape_markdown, _cells(row, has_seeds)))
        letters = ",".join(remarks.of(row))
        cells[2] += f" <sup>{letters}</sup>" if letters else ""
        lines.append(cells)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    below = [f"<sup>{letter}</sup> {escape_markdown(text)}" for text, letter in remarks.letters.items()]
    return "\n\n".join([table, *below, *map(escape_markdown, notes)]) + "\n"


def latex(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """A ``tabular`` for booktabs, with the footnotes below."""
    remarks, has_seeds = Remarks(rows), _has_seeds(rows)
    headings = _headings(rows)
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{lll{'r' * (len(headings) - 3)}}}", r"\toprule"]
    lines += [" & ".join(map(escape_tex, headings)) + r" \\", r"\midrule"]
    for number_, row in enumerate(rows):
        if number_ and rows[number_ - 1].model != row.model:
            lines.append(r"\midrule")
        cells = list(map(escape_tex, _cells(row, has_seeds)))
        letters = ",".join(remarks.of(row))
        cells[2] += rf"\textsuperscript{{{letters}}}" if letters else ""
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    below = [rf"\textsuperscript{{{letter}}} {escape_tex(text)}" for text, letter in remarks.letters.items()]
    return "\n".join(lines) + "\n\n\\footnotesize\n" + "\n\n".join([*below, *map(escape_tex, notes)]) + "\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """All numbers, unrounded; one line per row."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = ["model", "memory", "checkpoints", "tuning_ppl", "test_ppl", "test_ppl_low", "test_ppl_high"]
    head += ["test_ppl_min", "test_ppl_max", "test_ppl_of_checkpoints"]
    head += [f"change_{unit}{end}" for unit in ("percent", "nats") for end in ("", "_low", "_high")]
    writer.writerow([*head, "mass", *(f"share_{part}" for part in PARTS), "flags", "remarks"])
    for row in rows:
        each = row.ppl_of_checkpoints
        writer.writerow(
            [
                *(row.model, row.memory, len(each), row.tuned_ppl, *_numbers(row.ppl)),
                *(min(each), max(each), " ".join(map(str, each))),
                *_numbers(row.change),
                *_numbers(row.change_nats),
                *(row.mass, *(row.shares.get(part, 0.0) for part in PARTS)),
                " / ".join(dict.fromkeys(shlex.join(measured.flags) for measured in row.of_checkpoints)),
                "; ".join(
                    dict.fromkeys(text for measured in row.of_checkpoints for text in measured.remarks)
                ),
            ]
        )
    return file.getvalue()


def _numbers(estimate: Estimate | None) -> list[float | str]:
    return ["", "", ""] if estimate is None else [estimate.value, *estimate.interval]


def as_json(
    comparison: Comparison, results: Results, rows: Sequence[Row], notes: Sequence[str], command: str
) -> dict[str, Any]:
    """Everything that tables and plots show."""
    first = next(iter(results.values()))[0]
    return {
        "command": command,
        "data": comparison.data,
        "tune": comparison.tune,
        "test": comparison.test,
        "tune_tokens": first.tune_tokens,
        "test_tokens": sum(first.tokens),
        "test_samples": len(first.tokens),
        "baseline": [comparison.baseline[0], str(comparison.baseline[1])],
        "bootstrap": {"coverage": COVERAGE, "resamples": RESAMPLES, "seed": SEED},
        "frequency_bins": BINS,
        "tokens_by_frequency": first.tokens_by_frequency,
        "frequencies_from": first.counted_in,
        "rows": [_row(row, comparison) for row in rows],
        "measured": {name: [result.measured for result in found] for name, found in results.items()},
        "notes": list(notes),
    }


def _row(row: Row, comparison: Comparison) -> dict[str, Any]:
    (model,) = [model for model in comparison.models if model.name == row.model]
    of_checkpoints = []
    for path, ppl, measured in zip(model.checkpoints, row.ppl_of_checkpoints, row.of_checkpoints):
        content = asdict(measured)
        # In the file of the checkpoint.
        del content["nll"]
        of_checkpoints.append(
            {"checkpoint": path, "tuning_ppl": math.exp(measured.tuned_loss), "test_ppl": ppl, **content}
        )
    return {
        "model": row.model,
        "memory": row.memory,
        "tuning_ppl": row.tuned_ppl,
        "test_ppl": row.ppl.value,
        "test_ppl_interval": row.ppl.interval,
        "test_loss_nats": math.log(row.ppl.value),
        "change_percent": row.change and row.change.value,
        "change_percent_interval": row.change and row.change.interval,
        "change_nats": row.change_nats and row.change_nats.value,
        "change_nats_interval": row.change_nats and row.change_nats.interval,
        "mass": row.mass,
        "shares": row.shares,
        "checkpoints": of_checkpoints,
    }
