"""What is checked of a translation before there is a task: its flags, DATA and its dictionaries."""

import os
from typing import Any

from fairseq.data.data_utils import infer_language_pair

from ..data.provenance import data_folders
from ..flags import flag
from ..flags.bounds import check_bounds
from .checks import check_data, is_command

# Flags of a training, which fairseq-generate and fairseq-interactive would pass over without a word.
_OF_TRAINING = ("predefined_batches", "output_segments_to_file")


def check_translation_flags(kind: Any, args: Any) -> None:
    """Checks the flags of the task, before any file is read, and finds out the languages.

    Args:
        kind: the dataclass that declares them.
        args: their values; the languages are written there, as fairseq does, and mended values.

    Raises:
        ValueError: naming the flag.
    """
    check_bounds(kind, args)
    given = [flag(name) for name in _OF_TRAINING if getattr(args, name) is not None]
    if given and is_command("generate", "interactive"):
        raise ValueError(f"{' and '.join(given)}: of fairseq-train only, which orders training sentences")
    folder = data_folders(args.data or "")[0]
    if not os.path.isdir(folder):
        raise ValueError(f"DATA {folder} is no folder: name the one that fairseq-preprocess --destdir wrote")
    if args.source_lang is None or args.target_lang is None:
        args.source_lang, args.target_lang = infer_language_pair(folder)
    if args.source_lang is None or args.target_lang is None:
        raise ValueError(
            f"DATA {folder} holds no pair of languages, such as train.de-en.de.idx: pass --source-lang and "
            "--target-lang, or make it with fairseq-preprocess"
        )
    if args.upsample_primary == -1:
        # fairseq's default, at which it crashes where a subset has several parts: train, train1, ...
        args.upsample_primary = 1
    check_data(args.data, *dictionary_files(args.source_lang, args.target_lang))


def dictionary_files(source: str, target: str) -> tuple[str, str]:
    """The names of the dictionaries in DATA."""
    return f"dict.{source}.txt", f"dict.{target}.txt"
