"""Runs fairseq's commands, and those of this package, in processes of their own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import preloaded
from trime_fairseq.evaluation import EvaluationResult, run_eval_lm

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "tests" / "reference"
BIN = Path(sys.executable).parent
TASK = ["--user-dir", str(ROOT / "trime_fairseq"), "--task", "trime_language_modeling"]

# A word model small enough to train for a few updates in a test, of the reference's shape.
TINY = (
    "--arch transformer_lm_wiki103 --decoder-layers 2 --decoder-embed-dim 32 --decoder-input-dim 32 "
    "--decoder-output-dim 32 --decoder-ffn-embed-dim 64 --decoder-attention-heads 2 "
    "--adaptive-input-cutoff 1000,3000 --adaptive-softmax-cutoff 1000,3000 --dropout 0 "
    "--attention-dropout 0 --activation-dropout 0 --adaptive-softmax-dropout 0"
).split()

# Older releases of PyTorch have no float16 arithmetic on the CPU.
HALF_ON_CPU = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 2)
needs_half_on_cpu = pytest.mark.skipif(
    not HALF_ON_CPU, reason="float16 arithmetic on the CPU needs PyTorch 2.2"
)
HALVES = [pytest.param(torch.float16, marks=needs_half_on_cpu), torch.bfloat16]


def environment(cpu: bool) -> dict[str, str]:
    values = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    # fairseq starts a process for each GPU it sees, even with --cpu.
    return {**values, "CUDA_VISIBLE_DEVICES": ""} if cpu else values


Process = subprocess.Popen | preloaded.Process


def start(command: Sequence[Any], cwd: Path | None = None) -> Process:
    words = [str(word) for word in command]
    ours = any(word.startswith(("trime-", "trime_fairseq.cli", "tests.ranks")) for word in words[:3])
    cpu = ours or "--cpu" in words or "common.cpu=true" in words
    # Hydra and CUDA want a Python of their own; test_recipes.py runs the installed scripts themselves.
    # trime-bm25 imports no fairseq.
    if cpu and "hydra" not in words[0] and words[0] != "trime-bm25" and preloaded.can_run(words):
        return preloaded.Process(words, cwd and str(cwd), environment(cpu))
    if (BIN / words[0]).exists():
        words[0] = str(BIN / words[0])
    return subprocess.Popen(
        words,
        cwd=cwd,
        env=environment(cpu),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run(*command: Any, cwd: Path | None = None, fails: bool = False) -> str:
    """The output (both streams) of a command that must succeed, or must fail."""
    process = start(command, cwd)
    output, _ = process.communicate(timeout=600)
    assert (process.returncode != 0) == fails, output[-4000:]
    return output


def evaluate(
    folder: Path,
    checkpoint: str = "word-trime",
    flags: str = "--context-window 96 --use-local",
    data: str | Path = "word",
    command: Sequence[str] = ("fairseq-eval-lm",),
) -> dict[str, Any]:
    """The JSON result of ``fairseq-eval-lm`` on a reference checkpoint, with the output as "log"."""
    result = folder / "result.json"
    output = run(*evaluation_command(checkpoint, flags, data, command), "--eval-file", result)
    return {**json.loads(result.read_text()), "log": output}


def evaluate_here(
    checkpoint: str, flags: str, data: str | Path = "word", task: type[Any] | None = None
) -> EvaluationResult:
    """What the same evaluation is in this process; ``task`` as of :func:`run_eval_lm`."""
    return run_eval_lm([str(word) for word in evaluation_command(checkpoint, flags, data)[1:]], task)


def evaluation_command(
    checkpoint: str,
    flags: str,
    data: str | Path = "word",
    command: Sequence[str] = ("fairseq-eval-lm",),
) -> list[Any]:
    path = REFERENCE / "checkpoints" / checkpoint / "checkpoint_best.pt"
    defaults = {"--tokens-per-sample": "128", "--max-tokens": "1024", "--gen-subset": "valid"}
    given = flags.split()
    words = [*command, REFERENCE / "data" / data, *TASK, "--cpu", "--path", path, *given]
    for flag, value in defaults.items():
        if flag not in given:
            words += [flag, value]
    return words


def train(
    save_dir: Path,
    *flags: Any,
    data: str | Path = "word",
    model: Sequence[str] = tuple(TINY),
    fails: bool = False,
) -> str:
    """Trains on the reference text, or another; the log."""
    return run(*training_command(save_dir, *flags, data=data, model=model), fails=fails)


def training_command(
    save_dir: Path, *flags: Any, data: str | Path = "word", model: Sequence[str] = tuple(TINY)
) -> list[Any]:
    defaults = {
        "--task": "trime_language_modeling",
        "--optimizer": "sgd",
        "--lr": "0.5",
        "--max-tokens": "1024",
        "--tokens-per-sample": "128",
        "--save-dir": str(save_dir),
        "--ddp-backend": "legacy_ddp",
        "--criterion": "trime_loss",
        # The main branch of fairseq would drop a last batch that is no multiple of 8.
        "--required-batch-size-multiple": "1",
    }
    defaults["--user-dir"] = ROOT / "trime_fairseq"
    words = ["fairseq-train", REFERENCE / "data" / data]
    words += ["--cpu", "--no-progress-bar", "--log-interval", "1", "--no-epoch-checkpoints"]
    words += [*model, *flags]
    for flag, value in defaults.items():
        if flag not in flags:
            words += [flag, value]
    return words


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks(command: Sequence[Any], world_size: int, fails: bool = False) -> list[str]:
    """The outputs of ``world_size`` gloo processes that run a command together."""
    processes = start_ranks(command, world_size)
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert all((process.returncode != 0) == fails for process in processes), "\n\n".join(
        output[-4000:] for output in outputs
    )
    return outputs


def start_ranks(command: Sequence[Any], world_size: int) -> list[Process]:
    port = free_port()
    return [
        start(
            [
                *command,
                "--distributed-world-size",
                world_size,
                "--distributed-rank",
                rank,
                "--distributed-init-method",
                f"tcp://127.0.0.1:{port}",
                "--distributed-no-spawn",
                "--distributed-backend",
                "gloo",
            ]
        )
        for rank in range(world_size)
    ]
