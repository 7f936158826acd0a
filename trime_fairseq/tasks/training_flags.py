"""fairseq's own flags of a training that it would crash at, or pass over without a word."""

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch

from ..flags import flag
from ..flags.bounds import Bounds

logger = logging.getLogger(__name__)

_POSITIVE = Bounds(1)
_DEFAULT_CHECKPOINT = "checkpoint_last.pt"


def check_training_flags(settings: Mapping[str, Any]) -> None:
    """Checks flags of fairseq-train before anything is built.

    Args:
        settings: all groups of fairseq's settings; what is not there is not checked.

    Raises:
        ValueError: naming the flag and the fix.
    """
    dataset, optimization, checkpoint, common = (
        settings.get(name) or {} for name in ("dataset", "optimization", "checkpoint", "common")
    )
    _check_positive("required_batch_size_multiple", dataset.get("required_batch_size_multiple"))
    for batches in optimization.get("update_freq") or ():
        _check_positive("update_freq", batches)
    _check_precision(common)
    if checkpoint:
        _check_start(checkpoint)


def _check_positive(name: str, value: Any) -> None:
    problem = _POSITIVE.problem(value) if isinstance(value, (int, float)) else None
    if problem:
        raise ValueError(f"{flag(name)} {problem}")


def _check_precision(common: Mapping[str, Any]) -> None:
    if torch.cuda.is_available() or common.get("tpu") or common.get("amp"):
        return
    if common.get("bf16"):
        raise ValueError("--bf16 trains on a GPU, and PyTorch sees none: leave it out")
    if common.get("fp16") and not common.get("memory_efficient_fp16"):
        raise ValueError(
            "--fp16 trains on a GPU, and PyTorch sees none: leave it out, or pass --memory-efficient-fp16 "
            "with --optimizer adam"
        )


def _check_start(checkpoint: Mapping[str, Any]) -> None:
    """fairseq trains from scratch where the checkpoint to begin with is a folder, or is not there."""
    restored = checkpoint.get("restore_file") or _DEFAULT_CHECKPOINT
    _refuse_folder("restore_file", restored)
    own = os.path.join(str(checkpoint.get("save_dir") or ""), _DEFAULT_CHECKPOINT)
    if restored == _DEFAULT_CHECKPOINT:
        _refuse_folder("restore_file", own)
        if not os.path.exists(own):
            # Otherwise fairseq goes on from its own.
            finetuned = checkpoint.get("finetune_from_model")
            _refuse_folder("finetune_from_model", finetuned)
            if finetuned and _is_missing(finetuned):
                raise ValueError(f"--finetune-from-model {finetuned} is not there")
    elif _is_missing(restored) and restored != own:
        logger.warning(f"TRIME: --restore-file {restored} is not there: fairseq begins with new weights")


def _refuse_folder(name: str, path: str | None) -> None:
    if path and os.path.isdir(path):
        raise ValueError(f"{flag(name)} {path} is a folder: name the checkpoint in it")


def _is_missing(path: str) -> bool:
    return "://" not in path and not os.path.exists(path)
