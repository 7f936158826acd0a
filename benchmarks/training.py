"""Training throughput and peak memory of real fairseq-train runs: plain cross-entropy against the criterions.

    python benchmarks/training.py [--data DIR] [--updates 60] [--rounds 3] [-- MODEL AND BATCH FLAGS]

The criterions take turns, a process a run; the ratio is that of the medians. Without flags after -- it is the
demo's model (2 layers of width 128) with batches of 8 x 256 tokens.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import common

CRITERIONS = {
    "adaptive_loss": [],
    "trime_loss": [],
    "trime_long_loss_same_device": ["--keep-order"],
    "trime_ext_loss": [],
}


def run(data: str, criterion: str, updates: int, flags: List[str]) -> Dict[str, float]:
    """Tokens per second of training steps after the first quarter of the updates, and peak memory."""
    task = "language_modeling" if criterion == "adaptive_loss" else "trime_language_modeling"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [str(Path(sys.executable).parent / "fairseq-train"), data]
        command += ["--user-dir", str(common.ROOT / "trime_fairseq"), "--task", task]
        command += ["--criterion", criterion, *CRITERIONS[criterion], "--optimizer", "adam", "--lr", "0.001"]
        command += ["--max-update", str(updates), "--no-save", "--disable-validation", *flags]
        command += ["--log-format", "json", "--log-interval", "1", "--log-file", str(log)]
        command += ["--distributed-world-size", "1", "--save-dir", folder]
        command += ["--ddp-backend", "legacy_ddp"]
        with open(os.devnull, "w") as null:
            process = subprocess.Popen(command, stdout=null, stderr=null)
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"failed: {' '.join(command)}")
        steps = [
            json.loads(line[line.index("{") :]) for line in log.read_text().splitlines() if '"ups"' in line
        ]
    steps = [step for step in steps if "train_wall" in step][updates // 4 :]
    rates = [float(step["wps"]) for step in steps if float(step["wps"]) > 0]
    found = {"tokens/s": statistics.median(rates), "GB": usage.ru_maxrss * 1024 / 1e9}
    if "gb_free" in steps[-1]:
        import torch

        total = torch.cuda.get_device_properties(0).total_memory / 2**30
        found["GB"] = (total - min(float(step["gb_free"]) for step in steps)) * 2**30 / 1e9
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default=str(common.ROOT / "demo" / "out" / "data-bin"))
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("flags", nargs="*", help="flags of fairseq-train: model, batches, precision")
    args = parser.parse_args()
    if not (Path(args.data) / "dict.txt").exists():
        sys.exit(f"{args.data} holds no binarised data: run `make demo` first, or pass --data")
    flags = args.flags or [*common.DEMO_MODEL, "--tokens-per-sample", "256", "--max-tokens", "2048"]
    found: Dict[str, List[Dict[str, float]]] = {criterion: [] for criterion in CRITERIONS}
    for _ in range(args.rounds):
        for criterion in CRITERIONS:
            found[criterion].append(run(args.data, criterion, args.updates, flags))
    plain = statistics.median(r["tokens/s"] for r in found["adaptive_loss"])
    rows: List[Any] = []
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
    common.report("Training with fairseq-train", header, rows, "training")


if __name__ == "__main__":
    main()
