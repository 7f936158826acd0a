"""What the benchmarks share: the machine, fairseq's command lines in process, tables and JSON."""

import argparse
import json
import logging
import os
import platform
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "tests" / "reference"
sys.path.insert(0, str(ROOT))

# The demo's model, and its shape on the command line of fairseq-train.
DEMO_MODEL = (
    "--arch transformer_lm_wiki103 --decoder-layers 2 --decoder-embed-dim 128 --decoder-input-dim 128 "
    "--decoder-output-dim 128 --decoder-ffn-embed-dim 512 --decoder-attention-heads 4 "
    "--adaptive-input-cutoff 2000,5000 --adaptive-softmax-cutoff 2000,5000 "
    "--dropout 0.1 --attention-dropout 0 --activation-dropout 0 --adaptive-softmax-dropout 0.1"
).split()


def add_model_flags(parser: argparse.ArgumentParser, checkpoint: str) -> None:
    """What to evaluate; by default a checkpoint of the tests."""
    parser.add_argument("--data", default=str(REFERENCE / "data" / "word"))
    path = REFERENCE / "checkpoints" / checkpoint / "checkpoint_best.pt"
    parser.add_argument("--checkpoint", default=str(path))
    parser.add_argument("--tokens-per-sample", type=int, default=128)
    parser.add_argument("--context-window", type=int, default=96)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])


def hardware() -> str:
    """The machine in a line."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"{_cpu()}, {torch.get_num_threads()} threads"
    return f"{device}; torch {torch.__version__}, Python {platform.python_version()}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def report(title: str, header: Sequence[str], rows: list[Sequence[Any]], name: str) -> None:
    """Prints a Markdown table and writes benchmarks/out/NAME.json."""
    print(f"### {title}\n\n{hardware()}\n")
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)
    out = ROOT / "benchmarks" / "out"
    out.mkdir(exist_ok=True)
    content: dict[str, Any] = {"title": title, "hardware": hardware()}
    content["rows"] = [dict(zip(header, row)) for row in rows]
    (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def start_peak(device: str) -> int:
    """The bytes in use: :func:`peak_bytes` begins here. (That of getrusage begins with the parent's.)"""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes(device)


def peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[0])


def quiet() -> None:
    """fairseq's logging and warnings would drown the tables."""
    os.environ["LOGLEVEL"] = "ERROR"
    os.environ["PYTHONWARNINGS"] = "ignore"
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
