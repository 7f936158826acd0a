import logging
from dataclasses import replace

import numpy as np
import pytest

from trime_fairseq.datastore import DatastoreError, IndexManifest, Manifest, open_datastore
from trime_fairseq.datastore.index import growing
from trime_fairseq.datastore.layout import values_path
from trime_fairseq.files import file_checksum

from .small_stores import (
    CHUNK,
    CONFIG,
    ROWS,
    build,
    finished_files,
    killed_at,
    left_over,
    open_stream,
    operations,
    run_killed,
    small_manifest,
    small_rows,
    stored,
    stream,
)

faiss = pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """The files of a store that was streamed at once."""
    folder = tmp_path_factory.mktemp("streamed")
    stream(folder, pieces=ROWS)
    return finished_files(folder)


def remove_files(folder):
    for path in folder.iterdir():
        path.unlink()


def test_files_do_not_depend_on_how_rows_come(tmp_path, streamed):
    for pieces in (None, 1, CHUNK, 701):
        stream(tmp_path, pieces=pieces)
        assert finished_files(tmp_path) == streamed, pieces
        assert left_over(tmp_path) == []
        remove_files(tmp_path)


def test_store_and_description(tmp_path):
    stream(tmp_path, probe=3)
    store = open_datastore(str(tmp_path / "dstore"))
    assert store.keys is None
    assert np.array_equal(store.values, small_rows()[1])
    expected = small_manifest(keys_stored=False).completed(str(tmp_path / "dstore"))
    assert store.manifest == expected
    assert (expected.values_bytes, expected.keys_bytes, expected.keys_checksum) == (8 * ROWS, None, None)
    assert expected.values_checksum == file_checksum(values_path(str(tmp_path / "dstore")))
    with pytest.raises(DatastoreError, match="streamed"):
        open_datastore(str(tmp_path / "dstore"), need_keys=True)
    described = IndexManifest.read(str(tmp_path / "knn.l2"))
    assert (described.rows, described.datastore, described.complete) == (ROWS, store.fingerprint(), True)
    assert (described.training, described.probe, described.data_hash) == ("first", 3, "text")
    assert faiss.read_index(str(tmp_path / "knn.l2")).nprobe == 3


@pytest.mark.parametrize("metric", ["l2", "cos"])
def test_is_the_index_of_a_stored_store(tmp_path, metric):
    # Both train with all keys.
    config = replace(CONFIG, metric=metric, training_keys=ROWS)
    indexes = []
    for name in ("stored", "streamed"):
        (tmp_path / name).mkdir()
    stored(tmp_path / "stored")
    build(tmp_path / "stored", config)
    stream(tmp_path / "streamed", config)
    queries = np.random.default_rng(1).standard_normal((100, CONFIG.dimension)).astype(np.float32)
    for name in ("stored", "streamed"):
        indexes.append(faiss.read_index(str(tmp_path / name / f"knn.{metric}")))
    for ours, expected in zip(indexes[1].search(queries, 20), indexes[0].search(queries, 20)):
        np.testing.assert_array_equal(ours, expected)


def test_trains_with_the_first_keys(tmp_path):
    stream(tmp_path)
    keys = small_rows()[0].astype(np.float32)
    index = CONFIG.new_index()
    index.train(keys[: CONFIG.training_keys])
    index.nprobe = 8
    for begin in range(0, ROWS, CHUNK):
        index.add(keys[begin : begin + CHUNK])
    assert (tmp_path / "knn.l2").read_bytes() == faiss.serialize_index(index).tobytes()


def test_killed_before_any_file_operation(tmp_path, monkeypatch, streamed):
    count = operations(monkeypatch, lambda: stream(tmp_path))
    for event in range(1, count + 1):
        remove_files(tmp_path)
        assert killed_at(monkeypatch, lambda: stream(tmp_path), event)
        # The manifest of the store comes last.
        with pytest.raises(DatastoreError, match="not complete|does not exist"):
            open_datastore(str(tmp_path / "dstore"))
        stream(tmp_path)
        assert finished_files(tmp_path) == streamed, event
        assert left_over(tmp_path) == []
        assert IndexManifest.read(str(tmp_path / "knn.l2")).complete


def test_nothing_is_computed_again_after_the_index_got_its_name(tmp_path, monkeypatch, streamed):
    count = operations(monkeypatch, lambda: stream(tmp_path))
    resumed = []
    for event in range(1, count + 1):
        remove_files(tmp_path)
        assert killed_at(monkeypatch, lambda: stream(tmp_path), event)
        if not (tmp_path / "knn.l2").exists():
            continue
        sink = open_stream(tmp_path)
        resumed.append(sink.resume_row)
        sink.finish()
        sink.close()
        assert finished_files(tmp_path) == streamed
    # Two files are to be removed, and the manifest of the store to be completed.
    assert resumed == [ROWS] * 3


def test_kill_9(tmp_path, streamed):
    kills, _ = run_killed("stream", tmp_path, seed=2)
    assert kills  # how many more than one depends on the machine
    assert finished_files(tmp_path) == streamed
    assert left_over(tmp_path) == []


def test_resume_row(tmp_path, streamed):
    keys, values = small_rows()
    sink = open_stream(tmp_path)
    assert (sink.begin, sink.end, sink.resume_row, sink.key_dtype) == (0, ROWS, 0, "float16")
    sink.write(0, keys[:1050], values[:1050])
    sink.close()
    assert not Manifest.read(str(tmp_path / "dstore")).complete

    sink = open_stream(tmp_path)
    # Training takes 700 keys, in chunks 800; the keys after the last whole chunk were in memory.
    assert sink.resume_row == 1000
    # Rows before it change nothing, even in a batch that goes on after it.
    sink.write(0, np.zeros_like(keys[:900]), np.zeros_like(values[:900]))
    keys_again, values_again = keys.copy(), values.copy()
    keys_again[:1000], values_again[:1000] = 1, 1
    sink.write(900, keys_again[900:1200], values_again[900:1200])
    sink.write(1200, keys[1200:], values[1200:])
    sink.finish()
    sink.close()
    assert finished_files(tmp_path) == streamed


def test_values_on_the_disk_before_the_index(tmp_path, monkeypatch):
    keys, values = small_rows()
    sink = open_stream(tmp_path)
    synced = []
    sync = sink._values.sync
    monkeypatch.setattr(sink._values, "sync", lambda: (sync(), synced.append("values")))
    write = growing.write_faiss

    def write_faiss(index, path):
        synced.append(path.split(".")[-1])
        return write(index, path)

    monkeypatch.setattr(growing, "write_faiss", write_faiss)
    sink.write(0, keys[:1050], values[:1050])
    sink.close()
    assert synced == ["trained", *["values", "partial"] * 5]
    there = np.fromfile(values_path(str(tmp_path / "dstore")) + ".partial", np.int64)
    assert np.array_equal(there[:1050], values[:1050])


def test_trained_index_is_used_again(tmp_path, monkeypatch, streamed):
    keys, values = small_rows()
    sink = open_stream(tmp_path, save_every=1e6)
    sink.write(0, keys[:900], values[:900])
    sink.close()
    monkeypatch.setattr(growing, "train", None)
    sink = open_stream(tmp_path)
    assert sink.resume_row == 0
    sink.close()
    stream(tmp_path)
    assert finished_files(tmp_path) == streamed


def test_complete_store_is_left_alone(tmp_path, monkeypatch):
    stream(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    sink = open_stream(tmp_path)
    assert sink.resume_row == ROWS
    keys, values = small_rows()
    sink.write(ROWS - 100, keys[-100:], values[-100:])
    sink.finish()
    sink.close()
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_another_index_of_a_complete_store(tmp_path, streamed):
    stream(tmp_path)
    before = (tmp_path / "dstore_vals.npy").stat().st_mtime_ns
    other = replace(CONFIG, metric="ip")
    sink = open_stream(tmp_path, other)
    assert sink.resume_row == 0
    # The store stays complete meanwhile.
    assert open_datastore(str(tmp_path / "dstore")).rows == ROWS
    sink.close()
    stream(tmp_path, other)
    assert faiss.read_index(str(tmp_path / "knn.ip")).ntotal == ROWS
    assert (tmp_path / "dstore_vals.npy").stat().st_mtime_ns == before
    assert finished_files(tmp_path) == streamed


@pytest.mark.parametrize(
    ("change", "named"), [({"factory": "IVF4,PQ4"}, "factory"), ({"training_keys": 600}, "training_keys")]
)
def test_half_built_index_of_another_configuration(tmp_path, caplog, change, named):
    keys, values = small_rows()
    sink = open_stream(tmp_path)
    sink.write(0, keys[:1050], values[:1050])
    sink.close()
    with caplog.at_level(logging.INFO):
        sink = open_stream(tmp_path, replace(CONFIG, **change))
    assert sink.resume_row == 0
    assert "starting anew" in caplog.text
    assert named in caplog.text
    sink.close()


def test_lost_values(tmp_path, streamed):
    keys, values = small_rows()
    sink = open_stream(tmp_path)
    sink.write(0, keys[:1050], values[:1050])
    sink.close()
    (tmp_path / "dstore_vals.npy.partial").unlink()
    sink = open_stream(tmp_path)
    assert sink.resume_row == 0
    sink.close()
    stream(tmp_path)
    assert finished_files(tmp_path) == streamed


def test_values_lost_beside_a_finished_index(tmp_path, streamed):
    stream(tmp_path)
    (tmp_path / "dstore_vals.npy").unlink()
    sink = open_stream(tmp_path)
    assert sink.resume_row == 0
    sink.close()
    # Nor does a second start take the empty values for complete ones.
    sink = open_stream(tmp_path)
    assert sink.resume_row == 0
    sink.close()
    stream(tmp_path)
    assert finished_files(tmp_path) == streamed


def test_something_else_under_the_prefix(tmp_path):
    prefix = stored(tmp_path)
    for complete in (True, False):
        small_manifest(complete=complete).write(prefix)
        with pytest.raises(DatastoreError, match="keys_stored"):
            open_stream(tmp_path)
    (tmp_path / "dstore.json").unlink()
    with pytest.raises(DatastoreError, match="without a manifest"):
        open_stream(tmp_path)
    assert np.array_equal(np.fromfile(values_path(prefix), np.int64), small_rows()[1])
    remove_files(tmp_path)
    open_stream(tmp_path).close()
    with pytest.raises(DatastoreError, match="data_hash"):
        open_stream(tmp_path, manifest=small_manifest(data_hash="another"))


def test_two_writers(tmp_path):
    sink = open_stream(tmp_path)
    with pytest.raises(DatastoreError, match="another process writes"):
        open_stream(tmp_path)
    sink.close()
    sink = open_stream(tmp_path, manifest=small_manifest())
    sink.close()
    assert left_over(tmp_path) == ["dstore_vals.npy.partial"]


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_keys_that_are_no_numbers(tmp_path, number):
    keys, values = small_rows()
    keys[1234, 3] = number
    sink = open_stream(tmp_path)
    sink.write(0, keys[:1000], values[:1000])
    with pytest.raises(DatastoreError, match="rows 1234"):
        sink.write(1000, keys[1000:], values[1000:])
    sink.close()


def test_rows_that_cannot_be(tmp_path):
    keys, values = small_rows()
    sink = open_stream(tmp_path)
    with pytest.raises(DatastoreError, match="int32"):
        sink.write(0, keys, values.astype(np.int32))
    with pytest.raises(DatastoreError, match="float32 keys"):
        sink.write(0, keys.astype(np.float32), values)
    sink.write(0, keys[:10], values[:10])
    with pytest.raises(DatastoreError, match="10 of 1,500 is next"):
        sink.write(11, keys[11:20], values[11:20])
    with pytest.raises(DatastoreError, match="is next"):
        sink.write(10, np.concatenate([keys[10:], keys[:1]]), np.concatenate([values[10:], values[:1]]))
    with pytest.raises(DatastoreError, match="only 10 of 1,500"):
        sink.finish()
    sink.close()
    assert not (tmp_path / "knn.l2").exists()


def test_impossible_index(tmp_path):
    with pytest.raises(DatastoreError, match="`ncentroids`"):
        open_stream(tmp_path, replace(CONFIG, factory="IVF1501,Flat"))
    with pytest.raises(DatastoreError, match="dimension"):
        open_stream(tmp_path, manifest=small_manifest(dimension=32))
    assert list(tmp_path.iterdir()) == []
