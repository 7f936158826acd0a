"""The sentence pairs of DATA: checked before fairseq reads them, and readable in any order afterwards."""

import os
from collections.abc import Callable
from itertools import count
from typing import Any

from fairseq.data import Dictionary, data_utils

from .pair_files import PairFiles, is_there
from .stored_text import readable_in_any_order
from .text_files import check_text


def load_pairs(
    load: Callable[[], Any],
    datasets: dict[str, Any],
    files: PairFiles,
    dictionaries: tuple[Dictionary, Dictionary],
    flag: str,
    *,
    impl: str | None = None,
    combine: bool = False,
    with_target: bool = True,
) -> None:
    """Checks the files of a subset, then loads it as fairseq does.

    Args:
        load: fairseq's own way to load it.
        datasets: where ``load`` puts it.
        files: of the subset, in the folder of this epoch.
        dictionaries: of source and target.
        flag: that names the subset, for messages.
        impl: ``--dataset-impl``.
        combine: ``train``, ``train1``, ... are one text.
        with_target: whether target sentences must be there.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: with file, flag and fix, if a file is damaged, there is no sentence, or the sides have
            different numbers of sentences.
    """
    where = f"{flag} {files.subset}"
    try:
        parts = _check(files, dictionaries, impl, combine, with_target)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where}: {error}") from None
    if parts == [0]:
        raise ValueError(
            f"{where} of DATA {files.folder} holds no sentence: give fairseq-preprocess a text with at least "
            "one line"
        )
    try:
        load()
    except AssertionError as error:
        # Of fairseq's own datasets, which does not say of which file.
        if "same number" not in str(error):
            raise
        raise ValueError(f"{where}: {_numbers(files, dictionaries, impl)}") from None
    dataset = datasets[files.subset]
    dataset.src = readable_in_any_order(dataset.src, dictionaries[0])
    if dataset.tgt is not None:
        dataset.tgt = readable_in_any_order(dataset.tgt, dictionaries[1])


def _check(
    files: PairFiles,
    dictionaries: tuple[Dictionary, Dictionary],
    impl: str | None,
    combine: bool,
    with_target: bool,
) -> list[int | None]:
    """The number of source tokens of each part of a subset; None where it is not known."""
    found: list[int | None] = []
    for number in count():
        part = PairFiles(files.folder, f"{files.subset}{number or ''}", files.source, files.target)
        if number and not is_there(part.side(part.source)):
            break
        found.append(check_text(part.side(part.source), len(dictionaries[0]), impl))
        if with_target or is_there(part.side(part.target)):
            check_text(part.side(part.target), len(dictionaries[1]), impl)
        if not combine:
            break
    return found


def _numbers(files: PairFiles, dictionaries: tuple[Dictionary, Dictionary], impl: str | None) -> str:
    """What is wrong with sides of different numbers of sentences."""
    sides = []
    for language, dictionary in zip((files.source, files.target), dictionaries):
        lines = data_utils.load_indexed_dataset(files.side(language), dictionary, impl)
        sides.append(f"{os.path.basename(files.side(language))} has {len(lines):,}")
    return (
        f"the sides of DATA {files.folder} have different numbers of sentences ({', '.join(sides)}): make "
        "both again with fairseq-preprocess, from texts with a line for each pair"
    )
