"""Numbers that no index or search can have."""

import os

import numpy as np
import pytest

from trime_fairseq.cli.build_index import main as build_command
from trime_fairseq.datastore import (
    Datastore,
    DatastoreError,
    Index,
    Retriever,
)

from .small_stores import (
    build,
    stored,
)

faiss = pytest.importorskip("faiss")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--factory IVF1000000000,Flat",
            "--factory IVF1000000000,Flat: IVF1,000,000,000 must be from 1 to 4,194,304",
        ),
        ("--factory IVF0,Flat", "IVF0 must be from 1"),
        ("--factory IMI2x20,Flat", "x20 must be from 1 to 11"),
        ("--factory Pad1000000000,Flat", "Pad1,000,000,000 must be from 1 to 65,536"),
        ("--factory PQ4x24", "x24 must be from 1 to 16"),
        ("--factory IVF8_HNSW1000000,Flat", "HNSW1,000,000 must be from 1 to 512"),
        (f"--factory IVF{10**30},Flat", "must be from 1 to 4,194,304"),
        ("--ncentroids 1000000000", "--ncentroids must be at most 4,194,304, not 1000000000"),
        ("--seed -1", "--seed must not be negative: -1"),
        (f"--seed {10**30}", "must be at most"),
        ("--probe -3", "--probe must be positive, not -3"),
        (f"--probe {10**12}", "--probe must be at most 2,147,483,647, not 1000000000000"),
        ("--num_training_keys 0", "--num_training_keys must be positive, not 0"),
        (f"--num_training_keys {10**30}", "must be at most"),
        (f"--num_keys_to_add_at_a_time {10**30}", "must be at most"),
        ("--starting_point -1", "--starting_point -1 is not a row"),
        ("--dstore_size -5", "says 1,500, not -5 (--dstore_size)"),
    ],
)
def test_numbers_out_of_bounds(tmp_path, capsys, flags, message):
    stored(tmp_path)
    names = ["--dstore_mmap", str(tmp_path / "dstore"), "--faiss_index", str(tmp_path / "knn")]
    assert build_command([*names, "--code_size", "4", "--ncentroids", "8", *flags.split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith("trime-build-index: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("knn*"))


def test_chunks_larger_than_memory(tmp_path, monkeypatch):
    stored(tmp_path)
    memory = {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", memory.get)
    with pytest.raises(DatastoreError, match="`training_keys` 700: so many keys take .* lower it"):
        build(tmp_path)
    with pytest.raises(DatastoreError, match="`chunk` 1,000: so many keys"):
        build(tmp_path, chunk=1000)


@pytest.mark.parametrize(("setting", "number"), [("k", 0), ("k", -1), ("probe", 0), ("probe", -3)])
def test_searches_out_of_bounds(setting, number):
    store = Datastore("toy", np.zeros(5, dtype=np.int64), None, 4, None)
    index = Index("toy", faiss.IndexFlatIP(4), None, "ip")
    with pytest.raises(DatastoreError, match=f"`{setting}` must be positive, not {number}"):
        Retriever(index, store, **{"k": 2, setting: number})
