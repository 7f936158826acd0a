"""Building an index from stored keys: reuse, resumption after kills, refusals."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trime_fairseq.datastore import DatastoreError, IndexManifest, build_index, open_datastore
from trime_fairseq.datastore.index import growing
from trime_fairseq.files import Lock

from .small_stores import (
    CHUNK,
    CONFIG,
    DIMENSION,
    ROWS,
    build,
    killed_at,
    left_over,
    small_rows,
    stored,
)

faiss = pytest.importorskip("faiss")


def ids_of(index):
    lists = faiss.extract_index_ivf(index).invlists
    rows = [
        faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i))
        for i in range(lists.nlist)
        if lists.list_size(i)
    ]
    return np.sort(np.concatenate(rows))


def test_index_and_description(tmp_path):
    store = open_datastore(stored(tmp_path))
    path = build(tmp_path, probe=3)
    index = faiss.read_index(path)
    assert path == str(tmp_path / "knn.l2")
    assert np.array_equal(ids_of(index), np.arange(ROWS))
    assert index.nprobe == 3
    described = IndexManifest.read(path)
    assert (described.metric, described.dimension, described.rows, described.starting_point) == (
        "l2",
        DIMENSION,
        ROWS,
        0,
    )
    assert described.datastore == store.fingerprint()
    assert (described.probe, described.complete, described.faiss_version) == (3, True, faiss.__version__)
    assert (described.key_type, described.dictionary_hash) == ("last_ffn_input", "words")
    assert (described.checkpoint_hash, described.data_hash) == ("model", "text")
    assert left_over(tmp_path) == []


def test_trained_index_is_used_again(tmp_path, monkeypatch):
    stored(tmp_path)
    trained = Path(build(tmp_path, train_only=True))
    assert trained.name == "knn.l2.trained"
    assert not (tmp_path / "knn.l2").exists()
    with monkeypatch.context() as patch:
        patch.setattr(growing, "train", None)
        build(tmp_path)
    assert IndexManifest.read(str(tmp_path / "knn.l2")).training_seconds > 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 2}, "seed 1 / 2"),
        ({"factory": "IVF4,PQ4"}, "factory"),
        ({"training_keys": 300}, "training_keys"),
    ],
)
def test_other_trained_index_is_not_used(tmp_path, caplog, change, named):
    stored(tmp_path)
    build(tmp_path, train_only=True)
    before = (tmp_path / "knn.l2.trained").read_bytes()
    with caplog.at_level(logging.INFO):
        build(tmp_path, replace(CONFIG, **change))
    assert "training again" in caplog.text
    assert named in caplog.text
    assert (tmp_path / "knn.l2.trained").read_bytes() != before


def test_trained_index_of_another_store_is_not_used(tmp_path, caplog):
    stored(tmp_path)
    build(tmp_path, train_only=True)
    stored(tmp_path, checkpoint_hash="another")
    with caplog.at_level(logging.INFO):
        build(tmp_path)
    assert "training again" in caplog.text
    assert "datastore" in caplog.text


def test_finished_index_is_left_alone(tmp_path, caplog):
    stored(tmp_path)
    path = Path(build(tmp_path))
    before = path.stat().st_mtime_ns, path.stat().st_ino
    with caplog.at_level(logging.INFO):
        build(tmp_path, chunk=2 * CHUNK)
    assert "is there already" in caplog.text
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_other_probe_in_a_finished_index(tmp_path):
    stored(tmp_path)
    path = build(tmp_path, probe=3)
    lists = ids_of(faiss.read_index(path))
    build(tmp_path, probe=5)
    assert faiss.read_index(path).nprobe == 5
    assert IndexManifest.read(path).probe == 5
    assert np.array_equal(ids_of(faiss.read_index(path)), lists)
    assert left_over(tmp_path) == []


def test_other_index_is_replaced_at_the_end(tmp_path, monkeypatch, caplog):
    stored(tmp_path)
    path = Path(build(tmp_path))
    before, description = path.read_bytes(), IndexManifest.read(str(path))
    other = replace(CONFIG, factory="IVF4,PQ4")
    with caplog.at_level(logging.INFO):
        assert killed_at(monkeypatch, lambda: build(tmp_path, other), 15)
    assert "factory IVF8,PQ4 / IVF4,PQ4" in caplog.text
    assert (tmp_path / "knn.l2.partial").exists()
    assert (path.read_bytes(), IndexManifest.read(str(path))) == (before, description)
    build(tmp_path, other)
    assert faiss.read_index(str(path)).nlist == 4
    assert IndexManifest.read(str(path)).factory == "IVF4,PQ4"


def test_half_built_index_of_something_else(tmp_path, monkeypatch, caplog):
    stored(tmp_path)
    assert killed_at(monkeypatch, lambda: build(tmp_path), 15)
    assert (tmp_path / "knn.l2.partial").exists()
    with caplog.at_level(logging.INFO):
        build(tmp_path, chunk=CHUNK // 2)
    assert "starting anew: chunk 200 / 100" in caplog.text
    assert np.array_equal(ids_of(faiss.read_index(str(tmp_path / "knn.l2"))), np.arange(ROWS))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_keys_that_are_no_numbers(tmp_path, number):
    keys = small_rows()[0]
    keys[1234, 3] = number
    stored(tmp_path, keys)
    everything = replace(CONFIG, training_keys=ROWS)
    # Found among the keys for training, and among those to add.
    for config in (everything, replace(CONFIG, factory="IVF4,Flat", training_keys=4)):
        with pytest.raises(DatastoreError, match="rows 1234"):
            build(tmp_path, config)
    assert not (tmp_path / "knn.l2").exists()


def test_stores_without_keys(tmp_path):
    prefix = stored(tmp_path, complete=False)
    with pytest.raises(DatastoreError, match="not complete"):
        build(tmp_path)
    stored(tmp_path, keys_stored=False)
    with pytest.raises(DatastoreError, match="not stored: only StreamingIndex"):
        build_index(replace(open_datastore(prefix), keys=None), CONFIG, str(tmp_path / "knn"))


def test_other_dimension(tmp_path):
    stored(tmp_path)
    with pytest.raises(DatastoreError, match="dimension 16, not 32"):
        build(tmp_path, replace(CONFIG, dimension=32))


def test_two_builders(tmp_path):
    stored(tmp_path)
    lock = Lock(str(tmp_path / "knn.l2.lock"))
    assert lock.acquire()
    with pytest.raises(DatastoreError, match="another process"):
        build(tmp_path)
    lock.release()
    build(tmp_path)


@pytest.mark.parametrize(("setting", "named"), [("chunk", "`chunk`"), ("probe", "`probe`")])
def test_impossible_numbers(tmp_path, setting, named):
    stored(tmp_path)
    with pytest.raises(DatastoreError, match=named):
        build(tmp_path, **{setting: 0})


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this Faiss has GPUs")
def test_no_gpu(tmp_path):
    stored(tmp_path)
    with pytest.raises(DatastoreError, match="`use_gpu`"):
        build(tmp_path, use_gpu=True)


def test_files_that_are_no_descriptions(tmp_path):
    stored(tmp_path)
    path = build(tmp_path)
    (tmp_path / "knn.l2.json").write_text("{}")
    with pytest.raises(DatastoreError, match="knn.l2.json does not describe"):
        build(tmp_path)
    (tmp_path / "knn.l2.json").write_text(json.dumps({"factory": "Flat", "format_version": 99}))
    with pytest.raises(DatastoreError, match="update"):
        IndexManifest.read(path)
