"""Counts of the training text, and their bins."""

import numpy as np
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset

from tests.commands import REFERENCE
from trime_fairseq.comparison import frequencies
from trime_fairseq.comparison.frequencies import BINS, bins_of, training_counts

WORDS = REFERENCE / "data" / "word"


def test_counts(monkeypatch):
    expected = np.zeros(len(Dictionary.load(str(WORDS / "dict.txt"))), dtype=np.int64)
    for line in MMapIndexedDataset(str(WORDS / "train")):
        np.add.at(expected, line.numpy(), 1)
    counts, where = training_counts(str(WORDS))
    assert where == str(WORDS / "train.bin")
    assert np.array_equal(counts, expected)
    assert counts.sum() > 100_000
    monkeypatch.setattr(frequencies, "_AT_ONCE", 999)
    assert np.array_equal(training_counts(f"{WORDS}:other")[0], expected)


def test_without_training_text(tmp_path):
    (tmp_path / "dict.txt").write_text("a 12\nb 5\n")
    counts, where = training_counts(str(tmp_path))
    assert where == str(tmp_path / "dict.txt")
    assert counts[-2:].tolist() == [12, 5]


def test_bins():
    assert BINS[:6] == (0, 1, 3, 10, 30, 100)
    assert bins_of(np.array([0, 1, 2, 3, 9, 10, 29, 30])).tolist() == [0, 1, 1, 2, 2, 3, 3, 4]
    assert bins_of(np.array([10**12])) == len(BINS) - 1
