"""The subsets of DATA: checked before fairseq reads them, and readable in any order afterwards."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
from fairseq.data import Dictionary

from .stored_text import readable_in_any_order
from .text_files import check_text


def load_subset(
    load: Callable[[], Any],
    datasets: dict[str, Any],
    config: Any,
    folder: str,
    dictionary: Dictionary,
    name: str,
    flag: str,
    combine: bool,
) -> None:
    """Checks the files of a subset, then loads it as fairseq does.

    Args:
        load: fairseq's own way to load it.
        datasets: where ``load`` puts it.
        config: of the task: ``dataset_impl``, ``sample_break_mode``.
        folder: of DATA, in this epoch.
        dictionary: of the text.
        name: of the subset, ``train``, ``valid``, ...
        flag: that names it, for messages.
        combine: ``train``, ``train1``, ... are one text.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: with file, flag and fix, if a file is damaged or the text holds no token.
    """
    impl = None if config.dataset_impl is None else str(config.dataset_impl)
    try:
        counts = list(_tokens(os.path.join(folder, name), len(dictionary), impl, combine))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{flag} {name}: {error}") from None
    if None not in counts and not sum(filter(None, counts)):
        raise ValueError(
            f"{flag} {name} of DATA {folder} holds no token: give fairseq-preprocess a text with at "
            "least one line"
        )
    try:
        load()
    except ValueError as error:
        if str(config.sample_break_mode) != "complete_doc" or "reshape" not in str(error):
            raise
        raise ValueError(
            f"{flag} {name} of DATA {folder} holds no document, only empty lines: pass another "
            "--sample-break-mode than complete_doc"
        ) from None
    readable_in_any_order(datasets[name], dictionary)
    _count_long_samples(datasets[name])


def _count_long_samples(dataset: Any) -> None:
    """Corrects sizes that fairseq keeps in 16 bits, where a line of 65,600 tokens would count as 64."""
    slices = np.asarray(dataset.dataset.slice_indices)
    sizes = slices[:, 1].astype(np.int64) - slices[:, 0].astype(np.int64)
    if not np.array_equal(sizes, dataset.sizes):
        dataset.sizes = sizes


def _tokens(path: str, types: int, impl: str | None, combine: bool) -> Iterator[int | None]:
    """Yields the number of tokens of each text of the subset; None where it is not known."""
    for number in count():
        part = f"{path}{number or ''}"
        if number and not (os.path.exists(part) or os.path.exists(f"{part}.idx")):
            return
        yield check_text(part, types, impl)
        if not combine:
            return
