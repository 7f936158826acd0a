"""How often each word stands in the training text, and the bins of frequency of a plot."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from fairseq.data import Dictionary, data_utils
from fairseq.data.indexed_dataset import MMapIndexedDataset

from ..data.provenance import data_folders

# Least number of occurrences of each bin: 0, 1 to 2, 3 to 9, 10 to 29, ...
BINS = (0, *(digit * 10**power for power in range(9) for digit in (1, 3)))
_AT_ONCE = 2**24

Counts = npt.NDArray[np.int64]


def training_counts(data: str) -> tuple[Counts, str]:
    """Occurrences of each token in the training text, int64 [types], and where they were counted.

    Args:
        data: DATA; the first of several folders counts. Where it has no ``train``, the counts of ``dict.txt``
            are taken.
    """
    folder = data_folders(data)[0]
    words = os.path.join(folder, "dict.txt")
    dictionary = Dictionary.load(words)
    types = len(dictionary)
    path = os.path.join(folder, "train")
    if not all(os.path.isfile(f"{path}.{ending}") for ending in ("idx", "bin")):
        return np.array(dictionary.count[:types], dtype=np.int64), words
    text = data_utils.load_indexed_dataset(path, dictionary)
    counts = np.zeros(types, dtype=np.int64)
    for tokens in _pieces(text, path):
        counts += np.bincount(tokens, minlength=types)[:types]
    return counts, f"{path}.bin"


def _pieces(text: Any, path: str) -> Iterator[npt.NDArray[Any]]:
    if isinstance(text, MMapIndexedDataset):
        # All tokens lie one after another in one file: no need to go line by line.
        tokens = np.memmap(f"{path}.bin", dtype=text._index.dtype, mode="r")
        for begin in range(0, len(tokens), _AT_ONCE):
            yield tokens[begin : begin + _AT_ONCE]
    else:
        for line in text:
            yield line.numpy()


def bins_of(counts: Counts) -> Counts:
    """The number of the bin of each count."""
    return np.searchsorted(np.array(BINS), counts, side="right").astype(np.int64) - 1
