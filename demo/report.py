"""Table, JSON and plot of the demo's evaluations."""

import json
from pathlib import Path
from typing import Any


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one evaluation a line."""
    lines = [
        "| model | memory | test perplexity | mass on memories | tokens/s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row['model']} | {row['memory']} | {row['ppl']:.1f} | "
            f"{row['mem_mass']:.2f} | {row['tokens_per_second']:,.0f} |"
        )
    return "\n".join(lines)


def write_json(rows: list[dict[str, Any]], path: Path) -> None:
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Test perplexity against the size of the long-term memory; other evaluations as level lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    curves = [row for row in rows if row["mem_size"] and not row["use_external"]]
    sizes = sorted({row["mem_size"] for row in curves})
    styles = iter([":", "-.", "--", (0, (5, 1)), (0, (1, 3)), "-"])
    for row in rows:
        if row not in curves:
            label = f"{row['model']}, {row['memory']}"
            axes.axhline(row["ppl"], label=label, linestyle=next(styles), color="0.35")
    for model in dict.fromkeys(row["model"] for row in curves):
        curve = [row for row in curves if row["model"] == model]
        axes.plot(
            [row["mem_size"] for row in curve],
            [row["ppl"] for row in curve],
            marker="o",
            label=f"{model}, local + long",
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set_xlabel("size of the long-term memory (tokens)")
    axes.set_ylabel("test perplexity")
    axes.set_title("State of the Union addresses, small models trained on two CPU cores", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
