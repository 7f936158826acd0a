"""The table of an experiment in translation, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Mapping[str, Mapping[str, Any]], against: Sequence[str]) -> str:
    """A line for each row, as :func:`quality.compare` has them, and a line that explains."""
    heading = ["", "BLEU", "chrF", "length", "sentences/s"]
    heading += [f"p against {name} (BLEU, chrF)" for name in against]
    lines = [heading]
    for name, row in rows.items():
        cells = [name, _with_interval(row, "bleu"), _with_interval(row, "chrf")]
        cells += [f"{row['length_ratio']:.3f}", f"{row['sentences_per_second']:.1f}"]
        for other in against:
            values = [row.get(f"p_{metric}", {}).get(other) for metric in ("bleu", "chrf")]
            cells.append(", ".join(f"{value:.3f}" for value in values if value is not None) or "-")
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    note = "±: half of the 95 % interval. p: paired bootstrap of sacrebleu, two-sided, 1,000 samples."
    return "\n".join([*text, "", note, ""])


def _with_interval(row: Mapping[str, Any], metric: str) -> str:
    low, high = row[f"{metric}_interval"]
    return f"{row[metric]:.2f} ± {(high - low) / 2:.2f}"
