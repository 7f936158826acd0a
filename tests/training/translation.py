"""Trainings that go on from the published checkpoint of a translation, as in tests/reference/mt."""

import json
import re
from pathlib import Path
from typing import Any

import torch

from tests.commands import REFERENCE, ROOT

MT = REFERENCE / "mt"
CHECKPOINT = MT / "checkpoint" / "checkpoint_best.pt"
RUNS: dict[str, dict[str, Any]] = json.loads((MT / "training.json").read_text())
TASK = ["--user-dir", ROOT / "trime_fairseq", "--task", "trime_translation"]
ORDER = ["--predefined-batches", MT / "data" / "bm25_batches.json"]
# Losses of the reference have 3 digits.
TOLERANCE = 0.002

_MODEL = (
    "--arch transformer_iwslt_de_en --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 64 "
    "--decoder-embed-dim 64 --encoder-ffn-embed-dim 128 --decoder-ffn-embed-dim 128 "
    "--encoder-attention-heads 4 --decoder-attention-heads 4 --decoder-normalize-before "
    "--share-decoder-input-output-embed"
)
_TRAINING = (
    "--optimizer sgd --lr 0.05 --lr-scheduler fixed --clip-norm 0.0 --dropout 0.0 --max-tokens 2048 "
    "--required-batch-size-multiple 8 --reset-optimizer --reset-lr-scheduler --reset-dataloader "
    "--reset-meters --log-interval 1 --log-format simple --cpu --no-epoch-checkpoints "
    "--ddp-backend legacy_ddp --seed 1"
)


def training(
    save_dir: Path, *flags: Any, data: Path = MT / "data", start: Path | None = CHECKPOINT
) -> list[Any]:
    """The command; flags replace those of the reference. ``start`` None goes on from ``save_dir``."""
    given = [str(word) for word in flags]
    words = ["fairseq-train", data, "--user-dir", ROOT / "trime_fairseq", "--save-dir", save_dir]
    words += [*_MODEL.split(), *_TRAINING.split()]
    if start is None:
        words = [word for word in words if not str(word).startswith("--reset-")]
    else:
        words += ["--restore-file", start]
    return words + ([] if "--task" in given else ["--task", "trime_translation"]) + given


def plain_checkpoint(folder: Path) -> Path:
    """The published checkpoint as one of cross-entropy, for what has nothing to do with a memory."""
    state = torch.load(CHECKPOINT, map_location="cpu")
    state["args"].criterion = "label_smoothed_cross_entropy"
    torch.save(state, folder / "plain.pt")
    return folder / "plain.pt"


def losses(log: str, name: str = "loss") -> list[float]:
    """Of each update."""
    lines = [line for line in log.splitlines() if "| train_inner |" in line or "[train_inner]" in line]
    lines = lines or [line for line in log.splitlines() if re.search(r"epoch \d+: +\d+ /", line)]
    return [float(value) for line in lines for value in re.findall(rf"\b{name}[= ]([\d.]+)", line)]


def valid(log: str, name: str = "loss") -> list[float]:
    """Of each validation."""
    lines = [line for line in log.splitlines() if "valid on" in line or "| valid |" in line]
    return [float(value) for line in lines for value in re.findall(rf"\| {name} ([\d.]+)", line)]
