"""Training throughput and peak memory of real fairseq-train runs: plain cross-entropy against the criterions.

    python benchmarks/training.py [--data DIR] [--updates 60] [--rounds 3] [-- MODEL AND BATCH FLAGS]
    python benchmarks/training.py --shape wiki103-247M [--max-tokens N] [--gpus N] [-- FURTHER FLAGS]

The criterions take turns, a process a run; the ratio is that of the medians. Without flags after -- it is the
demo's model (2 layers of width 128) with batches of 8 x 256 tokens. With --shape all flags are those of the
recipe of that name in train_scripts, but for the criterion, updates of one batch and, where there is no CUDA,
half precision; the text is random. trime_long_loss_same_device then has the batch of a device as memory,
trime_ext_loss those of all.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import common
import shapes

MEMORY_CRITERIONS = {
    "trime_loss": [],
    "trime_long_loss_same_device": ["--keep-order"],
    "trime_ext_loss": [],
}


class Setup(NamedTuple):
    """What all runs share.

    Attributes:
        data: binarised data.
        plain: the criterion without memory.
        base: flags of fairseq-train that this benchmark's own override.
        flags: flags that override those.
        updates: number of them.
        gpus: number of processes.
        title, name: of the table.
    """

    data: str
    plain: str
    base: list[str]
    flags: list[str]
    updates: int
    gpus: int
    title: str
    name: str


def run(setup: Setup, criterion: str) -> dict[str, float]:
    """Tokens per second of training steps after the first quarter of the updates, and peak memory."""
    task = "language_modeling" if criterion == setup.plain else "trime_language_modeling"
    with tempfile.TemporaryDirectory() as folder:
        log, output = Path(folder) / "log", Path(folder) / "output"
        command = [str(Path(sys.executable).parent / "fairseq-train"), setup.data, *setup.base]
        command += ["--user-dir", str(common.ROOT / "trime_fairseq"), "--task", task]
        command += ["--criterion", criterion, *MEMORY_CRITERIONS.get(criterion, [])]
        command += ["--max-update", str(setup.updates), "--no-save", "--disable-validation", *setup.flags]
        command += ["--log-format", "json", "--log-interval", "1", "--log-file", str(log)]
        command += ["--distributed-world-size", str(setup.gpus), "--save-dir", folder]
        command += ["--ddp-backend", "legacy_ddp"]
        with open(output, "w") as file:
            # What is measured is read from the log, which must not be quiet.
            environment = {**os.environ, "LOGLEVEL": "INFO"}
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{output.read_text()[-2000:]}\nfailed: {' '.join(command)}")
        steps = [
            json.loads(line[line.index("{") :]) for line in log.read_text().splitlines() if '"ups"' in line
        ]
    steps = [step for step in steps if "train_wall" in step][setup.updates // 4 :]
    rates = [float(step["wps"]) for step in steps if float(step["wps"]) > 0]
    found = {"tokens/s": statistics.median(rates), "GB": usage.ru_maxrss * 1024 / 1e9}
    if "gb_free" in steps[-1]:
        import torch

        total = torch.cuda.get_device_properties(0).total_memory / 2**30
        found["GB"] = (total - min(float(step["gb_free"]) for step in steps)) * 2**30 / 1e9
    return found


def demo_setup(args: argparse.Namespace) -> Setup:
    data = args.data or str(common.ROOT / "demo" / "out" / "data-bin")
    if not (Path(data) / "dict.txt").exists():
        sys.exit(f"{data} holds no binarised data: run `make demo` first, or pass --data")
    base = ["--optimizer", "adam", "--lr", "0.001"]
    flags = args.flags or [*common.DEMO_MODEL, "--tokens-per-sample", "256", "--max-tokens", "2048"]
    if args.max_tokens:
        flags = [*flags, "--max-tokens", str(args.max_tokens)]
    title = "Training with fairseq-train"
    return Setup(data, "adaptive_loss", base, flags, args.updates, args.gpus, title, "training")


def recipe_setup(args: argparse.Namespace) -> Setup:
    common.quiet()
    base = shapes.recipe(args.shape, args.gpus, args.max_tokens)
    config = shapes.parse([*base, *args.flags])
    # Flags after -- may have changed the batch.
    batch, segment = config.dataset.max_tokens, config.task.tokens_per_sample
    # Two steps more than asked for, so that no epoch ends on the way.
    data = args.data or shapes.write_data(args.shape, "train", (args.updates + 2) * args.gpus * batch)
    plain = "adaptive_loss" if config.model.adaptive_softmax_cutoff else "cross_entropy"
    half = [name for name in ("fp16", "bf16") if config.common[name]]
    precision = half[0] if half else "float32 (half precision needs CUDA)"
    title = (
        f"Training with fairseq-train, {args.shape}{' with ' * bool(args.flags)}{' '.join(args.flags)}: "
        f"{args.gpus} x {batch:,} tokens in segments of {segment:,}, {precision}, random text"
    )
    name = f"training-{args.shape}"
    return Setup(data, plain, base, args.flags, args.updates, args.gpus, title, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=shapes.NAMES, help="a recipe of train_scripts, on random text")
    parser.add_argument("--data", help="default: demo/out/data-bin; with --shape, random text")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, help="of a device's batch")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("flags", nargs="*", help="flags of fairseq-train: model, batches, precision")
    args = parser.parse_args()
    setup = recipe_setup(args) if args.shape else demo_setup(args)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (setup.plain, *MEMORY_CRITERIONS)}
    for _ in range(args.rounds):
        for criterion, runs in found.items():
            runs.append(run(setup, criterion))
    plain = statistics.median(r["tokens/s"] for r in found[setup.plain])
    rows: list[Any] = []
    for criterion, runs in found.items():
        rates = [r["tokens/s"] for r in runs]
        rows.append(
            (
                criterion,
                f"{statistics.median(rates):,.0f}",
                f"{min(rates):,.0f} to {max(rates):,.0f}",
                f"{statistics.median(rates) / plain:.2f}",
                f"{max(r['GB'] for r in runs):.2f}",
            )
        )
    header = ("criterion", "tokens/s", "range", "ratio", "peak GB")
    common.report(setup.title, header, rows, setup.name)


if __name__ == "__main__":
    main()
