"""``--predefined-batches``: a JSON list of segment ids, from which batches are taken in slices."""

import json
from typing import List

import numpy as np
from numpy.typing import NDArray


def read_predefined(path: str, num_segments: int, tokens_per_sample: int) -> NDArray[np.int64]:
    """The order of segments that the file gives.

    Args:
        path: file, a JSON list that holds each number from 0 to ``num_segments`` - 1 once.
        num_segments: number of training segments.
        tokens_per_sample: for the message.

    Raises:
        ValueError: with the flag, the file and the mend, if it is anything else or cannot be read.
    """
    flag = f"--predefined-batches {path}"
    try:
        with open(path, encoding="utf-8") as file:
            ids = json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{flag}: cannot be read as JSON: {error}") from error
    if not isinstance(ids, list) or not all(type(number) is int for number in ids):
        raise ValueError(f"{flag}: a JSON list of integers expected, the ids of the training segments")
    if len(ids) != num_segments:
        raise ValueError(
            f"{flag} lists {len(ids):,} segments, but the training data has {num_segments:,} at "
            f"--tokens-per-sample {tokens_per_sample}: make the file again from these data, with the same "
            "--tokens-per-sample and --sample-break-mode"
        )
    return _permutation(ids, flag)


def _permutation(ids: List[int], flag: str) -> NDArray[np.int64]:
    outside = [number for number in ids if not 0 <= number < len(ids)]
    if outside:
        raise ValueError(
            f"{flag}: {outside[0]} is not the id of a segment (0 to {len(ids) - 1:,}): "
            "make the file again from these data"
        )
    order = np.asarray(ids, dtype=np.int64)
    found = np.bincount(order, minlength=len(ids))
    if (found != 1).any():
        repeated, missing = int(found.argmax()), int(found.argmin())
        raise ValueError(
            f"{flag}: each segment must be listed once, but {repeated} is listed {found[repeated]} times "
            f"and {missing} not at all"
        )
    return order
