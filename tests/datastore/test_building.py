"""Building an index from stored keys: reuse, resumption after kills, refusals."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trime_fairseq.datastore import growing_index
from trime_fairseq.datastore.builder import build_index
from trime_fairseq.datastore.datastore import DatastoreError, open_datastore
from trime_fairseq.datastore.index.config import IndexSidecar
from trime_fairseq.files import Lock

from .small_stores import (
    CHUNK,
    CONFIG,
    DIMENSION,
    ROWS,
    build,
    finished_files,
    killed_at,
    left_over,
    operations,
    run_killed,
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
    sidecar = IndexSidecar.read(path)
    assert (sidecar.metric, sidecar.dimension, sidecar.rows, sidecar.starting_point) == (
        "l2",
        DIMENSION,
        ROWS,
        0,
    )
    assert sidecar.datastore == store.fingerprint()
    assert (sidecar.probe, sidecar.complete, sidecar.faiss_version) == (3, True, faiss.__version__)
    assert (sidecar.key_type, sidecar.dictionary_hash) == ("last_ffn_input", "words")
    assert (sidecar.checkpoint_hash, sidecar.data_hash) == ("model", "text")
    assert left_over(tmp_path) == []


def test_trained_index_is_used_again(tmp_path, monkeypatch):
    stored(tmp_path)
    trained = Path(build(tmp_path, train_only=True))
    assert trained.name == "knn.l2.trained"
    assert not (tmp_path / "knn.l2").exists()
    with monkeypatch.context() as patch:
        patch.setattr(growing_index, "train", None)
        build(tmp_path)
    assert IndexSidecar.read(str(tmp_path / "knn.l2")).training_seconds > 0


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
    assert IndexSidecar.read(path).probe == 5
    assert np.array_equal(ids_of(faiss.read_index(path)), lists)
    assert left_over(tmp_path) == []


def test_other_index_is_replaced_at_the_end(tmp_path, monkeypatch, caplog):
    stored(tmp_path)
    path = Path(build(tmp_path))
    before, description = path.read_bytes(), IndexSidecar.read(str(path))
    other = replace(CONFIG, factory="IVF4,PQ4")
    with caplog.at_level(logging.INFO):
        assert killed_at(monkeypatch, lambda: build(tmp_path, other), 15)
    assert "factory IVF8,PQ4 / IVF4,PQ4" in caplog.text
    assert (tmp_path / "knn.l2.partial").exists()
    assert (path.read_bytes(), IndexSidecar.read(str(path))) == (before, description)
    build(tmp_path, other)
    assert faiss.read_index(str(path)).nlist == 4
    assert IndexSidecar.read(str(path)).factory == "IVF4,PQ4"


def test_description_is_always_that_of_the_index(tmp_path, monkeypatch):
    stored(tmp_path)
    configs = [replace(CONFIG, factory=f"IVF{lists},Flat") for lists in (4, 8)]
    for config in configs:
        build(tmp_path, config, train_only=True)
    build(tmp_path, configs[0])
    count = operations(monkeypatch, lambda: build(tmp_path, configs[1], chunk=ROWS))
    described = []
    for event in range(1, count + 1):
        build(tmp_path, configs[0])
        assert killed_at(monkeypatch, lambda: build(tmp_path, configs[1], chunk=ROWS), event)
        there = IndexSidecar.read(str(tmp_path / "knn.l2"))
        lists = faiss.read_index(str(tmp_path / "knn.l2")).nlist
        described.append(there and there.factory)
        assert described[-1] in (None, f"IVF{lists},Flat")
    assert {"IVF4,Flat", "IVF8,Flat"} <= set(described)


def test_half_built_index_of_something_else(tmp_path, monkeypatch, caplog):
    stored(tmp_path)
    assert killed_at(monkeypatch, lambda: build(tmp_path), 15)
    assert (tmp_path / "knn.l2.partial").exists()
    with caplog.at_level(logging.INFO):
        build(tmp_path, chunk=CHUNK // 2)
    assert "starting anew: chunk 200 / 100" in caplog.text
    assert np.array_equal(ids_of(faiss.read_index(str(tmp_path / "knn.l2"))), np.arange(ROWS))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The files of an index that was built in one go."""
    folder = tmp_path_factory.mktemp("built")
    stored(folder)
    build(folder)
    return finished_files(folder)


def test_killed_before_any_file_operation(tmp_path, monkeypatch, built, caplog):
    stored(tmp_path)
    count = operations(monkeypatch, lambda: build(tmp_path))
    continued = set()
    for event in range(1, count + 1):
        _remove_index(tmp_path)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert killed_at(monkeypatch, lambda: build(tmp_path), event)
            build(tmp_path)
        assert finished_files(tmp_path) == built, event
        assert IndexSidecar.read(str(tmp_path / "knn.l2")).complete
        assert left_over(tmp_path) == []
        continued |= {r.message.rsplit("row ")[-1] for r in caplog.records if "continuing" in r.message}
    assert continued == {f"{row:,}" for row in [*range(CHUNK, ROWS, CHUNK), ROWS]}


def test_kill_9(tmp_path, built):
    stored(tmp_path)
    kills, log = run_killed("build", tmp_path, seed=1)
    assert kills  # how many more than one depends on the machine
    assert finished_files(tmp_path) == built
    assert left_over(tmp_path) == []


def test_starting_point_continues(tmp_path, monkeypatch):
    stored(tmp_path)
    whole = Path(build(tmp_path, starting_point=450)).read_bytes()
    _remove_index(tmp_path)
    assert killed_at(monkeypatch, lambda: build(tmp_path, starting_point=450), 12)
    assert (tmp_path / "knn.l2.partial").exists()
    assert Path(build(tmp_path, starting_point=450)).read_bytes() == whole


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
    with pytest.raises(DatastoreError, match="--streaming"):
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


@pytest.mark.parametrize(("setting", "named"), [("chunk", "--num_keys_to_add"), ("probe", "--probe")])
def test_impossible_numbers(tmp_path, setting, named):
    stored(tmp_path)
    with pytest.raises(DatastoreError, match=named):
        build(tmp_path, **{setting: 0})


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this Faiss has GPUs")
def test_no_gpu(tmp_path):
    stored(tmp_path)
    with pytest.raises(DatastoreError, match="--use_gpu"):
        build(tmp_path, use_gpu=True)


def test_files_that_are_no_descriptions(tmp_path):
    stored(tmp_path)
    path = build(tmp_path)
    (tmp_path / "knn.l2.json").write_text("{}")
    with pytest.raises(DatastoreError, match="knn.l2.json does not describe"):
        build(tmp_path)
    (tmp_path / "knn.l2.json").write_text(json.dumps({"factory": "Flat", "format_version": 99}))
    with pytest.raises(DatastoreError, match="update"):
        IndexSidecar.read(path)


def _remove_index(folder):
    for path in folder.glob("knn*"):
        path.unlink()
