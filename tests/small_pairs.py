"""Sentence pairs and tasks of translation on small texts, set up as fairseq sets them up."""

import shutil
from pathlib import Path

import numpy as np
import torch
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.data.indexed_dataset import make_builder

from tests.commands import REFERENCE
from trime_fairseq.tasks.translation_config import TrimeTranslationConfig
from trime_fairseq.tasks.trime_translation import TrimeTranslationTask

DATA = REFERENCE / "mt" / "data"


def make_dictionary(types: int = 30) -> Dictionary:
    words = Dictionary()
    for number in range(types):
        words.add_symbol(f"w{number}")
    return words


def make_pairs(sources, targets, dictionary: Dictionary | None = None) -> LanguagePairDataset:
    """Pairs of sentences of so many tokens each, the end of a sentence counted."""
    words = dictionary or make_dictionary()
    generator = np.random.default_rng(1)

    def side(lengths):
        numbers = [generator.integers(words.nspecial, len(words), length) for length in lengths]
        return [torch.tensor([*row[:-1], words.eos()]) for row in numbers]

    return LanguagePairDataset(
        side(sources),
        np.array(sources),
        words,
        side(targets),
        np.array(targets),
        words,
        left_pad_source=True,
        left_pad_target=False,
    )


def write_side(path: Path, sentences, dictionary: Dictionary, impl: str = "mmap") -> None:
    """Binarises sentences of words, as fairseq-preprocess does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    builder = make_builder(f"{path}.bin", impl, len(dictionary))
    for sentence in sentences:
        builder.add_item(dictionary.encode_line(sentence, add_if_not_exist=False, line_tokenizer=str.split))
    builder.finalize(f"{path}.idx")


def write_pairs(folder: Path, dictionary: Dictionary | None = None, impl: str = "mmap", **subsets) -> Path:
    """Subsets are lists of (source, target); the languages are es and en."""
    words = dictionary or make_dictionary()
    for name, pairs in subsets.items():
        for side, language in enumerate(("es", "en")):
            write_side(folder / f"{name}.es-en.{language}", [pair[side] for pair in pairs], words, impl)
    for language in ("es", "en"):
        words.save(str(folder / f"dict.{language}.txt"))
    return folder


def copy_data(folder: Path) -> Path:
    """The reference pairs, to be damaged."""
    shutil.copytree(DATA, folder)
    return folder


def make_task(data=DATA, **settings) -> TrimeTranslationTask:
    """On the folder ``data``; settings are fields of the task's config."""
    values = dict(
        train_subset="train",
        dataset_impl=None,
        required_seq_len_multiple=1,
        max_tokens=None,
        batch_size=None,
        distributed_world_size=1,
        path=None,
        model_overrides="{}",
    )
    return TrimeTranslationTask.setup_task(TrimeTranslationConfig(data=str(data), **{**values, **settings}))
