"""Translations by the reference checkpoint: its datastore as a folder, commands, and what they print."""

import copy
import functools
import json
import re
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from fairseq import checkpoint_utils

from tests.commands import REFERENCE, ROOT
from trime_fairseq.tasks.translation_config import TrimeTranslationConfig
from trime_fairseq.tasks.trime_translation import TrimeTranslationTask

MT = REFERENCE / "mt"
CHECKPOINT = MT / "checkpoint" / "checkpoint_best.pt"
DIMENSION, ROWS, TYPES = 64, 7139, 1712
TASK = ["--user-dir", str(ROOT / "trime_fairseq"), "--task", "trime_translation"]
RUNS: dict[str, dict[str, Any]] = json.loads((MT / "evaluation.json").read_text())
# How the reference searches.
BEAM = dict(beam=4, max_len_a=1.2, max_len_b=10, lenpen=0.6)


def make_folder(folder: Path) -> Path:
    """The published datastore with its indexes, and exact ones, which are too large to ship."""
    for name in ("keys.npy", "vals.npy", "knn_index_ip", "knn_index_l2"):
        (folder / name).symlink_to(MT / "datastore" / name)
    (folder / "store-fp16_keys.npy").symlink_to(MT / "datastore" / "keys.npy")
    (folder / "store_vals.npy").symlink_to(MT / "datastore" / "vals.npy")
    keys = keys_of(folder).astype(np.float32)
    for metric, kind in (("ip", faiss.IndexFlatIP), ("l2", faiss.IndexFlatL2)):
        index = kind(DIMENSION)
        index.add(keys)
        faiss.write_index(index, str(folder / f"flat_{metric}"))
    return folder


def keys_of(folder: Path) -> Any:
    return np.fromfile(folder / "keys.npy", dtype=np.float16).reshape(ROWS, DIMENSION)


def generation(
    flags: str, *more: Any, data: Path = MT / "data", command: str = "fairseq-generate"
) -> list[Any]:
    words = [
        command,
        data,
        *TASK,
        "--source-lang",
        "es",
        "--target-lang",
        "en",
        "--cpu",
        "--path",
        CHECKPOINT,
        "--scoring",
        "sacrebleu",
    ]
    if command == "fairseq-generate":
        words += ["--gen-subset", "test", "--tokenizer", "moses", "--remove-bpe"]
    return [*words, *flags.split(), *more]


def search_flags(folder: Path, overrides: dict[str, Any]) -> str:
    """The flags of published overrides."""
    named = {**overrides, "index_filename": None}
    kind = named["knn_lambda_type"]
    named["knn_lambda_type"] = {"trime": "trime-published"}.get(kind, kind)
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in named.items() if value is not None]
    store = f"--dstore-filename {folder}/store --indexfile {folder}/{overrides['index_filename']}"
    return f"--use-knn-datastore {store} --dstore-fp16 --dstore-size {ROWS} --no-load-keys {' '.join(flags)}"


def printed(output: str) -> dict[str, dict[str, Any]]:
    """By sentence: hypothesis and score of line H, logarithms to base 2 of line P."""
    found: dict[str, dict[str, Any]] = {}
    for line in output.splitlines():
        match = re.match(r"([HP])-(\d+)\t(.*)", line)
        if match is None:
            continue
        entry = found.setdefault(match[2], {})
        if match[1] == "P":
            entry["positional"] = [float(word) for word in match[3].split()]
        elif "hypo" not in entry:
            score, _, hypothesis = match[3].partition("\t")
            entry.update(score=float(score), hypo=hypothesis)
    return found


def open_task(folder: Path | None, models: int = 1, **settings: Any) -> tuple[Any, list[Any]]:
    """The task of a translation in this process, with the split ``test``, and an ensemble of the checkpoint.

    With a folder of :func:`make_folder`, flags name its datastore, and ``flat_ip`` unless settings name
    another index.
    """
    values: dict[str, Any] = dict(
        data=str(MT / "data"),
        source_lang="es",
        target_lang="en",
        train_subset="train",
        dataset_impl=None,
        path=":".join([str(CHECKPOINT)] * models),
        model_overrides="{}",
        required_seq_len_multiple=1,
    )
    if folder is not None:
        values |= dict(use_knn_datastore=True, dstore_filename=f"{folder}/store", dstore_fp16=True)
        values["indexfile"] = f"{folder}/{settings.pop('index_filename', 'flat_ip')}"
    task = TrimeTranslationTask.setup_task(TrimeTranslationConfig(**{**values, **settings}))
    task.load_dataset("test")
    return task, [copy.deepcopy(_model()) for _ in range(models)]


@functools.cache
def _model() -> Any:
    task, _ = open_task(None, 0)
    (model,), _ = checkpoint_utils.load_model_ensemble([str(CHECKPOINT)], task=task)
    return model.eval()


def batch_of(task: Any, sentences: int = 6) -> Any:
    """The first sentences of the split ``test``."""
    dataset = task.dataset("test")
    return dataset.collater([dataset[number] for number in range(sentences)])
