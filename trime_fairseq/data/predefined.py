"""``--predefined-batches``: a JSON list of segment ids, from which batches are taken in slices."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..bm25.batches import BatchesInfo, read_order
from .provenance import data_folders


def check_one_folder(data: str) -> None:
    """Raises ValueError if the DATA argument names several folders: ids would be those of the first."""
    if len(data_folders(data)) > 1:
        raise ValueError("--predefined-batches orders the segments of one DATA folder, not of several")


def read_predefined(path: str, num_segments: int, tokens_per_sample: int) -> NDArray[np.int64]:
    """The order of segments that the file gives.

    Args:
        path: file, a JSON list that holds each number from 0 to ``num_segments`` - 1 once.
        num_segments: number of training segments.
        tokens_per_sample: for the message.

    Raises:
        ValueError: with the flag, the file and the fix, if it is anything else or cannot be read.
    """
    flag = f"--predefined-batches {path}"
    return read_order(
        path,
        flag,
        num_segments,
        f"but the training data has {num_segments:,} at --tokens-per-sample {tokens_per_sample}: make the "
        "file again from these data, with the same --tokens-per-sample and --sample-break-mode",
    )


def check_description(
    path: str, *, tokens_per_sample: int, sample_break_mode: str, data_hash: Callable[[], str | None]
) -> None:
    """Compares the description that ``trime-bm25 batches`` writes beside a list; lists of others have none.

    Args:
        path: the list.
        tokens_per_sample, sample_break_mode: of the training.
        data_hash: SHA-256 of the binarised training text, which takes time.

    Raises:
        ValueError: if the list is of other segments; or if the description is none.
    """
    info = BatchesInfo.read(path)
    if info is None:
        return
    flag = f"--predefined-batches {path}"
    for name, there, here in (
        ("--tokens-per-sample", info.tokens_per_sample, tokens_per_sample),
        ("--sample-break-mode", info.sample_break_mode, sample_break_mode),
    ):
        if there not in (None, here):
            raise ValueError(f"{flag} is of {name} {there}, the training of {here}: make the file again")
    if info.data_hash is not None and info.data_hash != data_hash():
        raise ValueError(
            f"{flag} was made from another text than the training data: export the segments of these data "
            "and make the file again"
        )
