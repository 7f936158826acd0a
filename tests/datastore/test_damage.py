"""Files of datastores and indexes that are damaged: never complete, written again or refused."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from tests.fuzzing.mutations import flip
from trime_fairseq.datastore import (
    DatastoreError,
    DatastoreWriter,
    Manifest,
    open_datastore,
    open_index,
)

from .small_stores import (
    DIMENSION,
    ROWS,
    build,
    finished_files,
    small_manifest,
    small_rows,
    stored,
    stream,
    write,
)

faiss = pytest.importorskip("faiss")
FILES = ("dstore-fp16_keys.npy", "dstore_vals.npy", "dstore.json")


def files(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def damaged(folder, name, how):
    path = folder / name
    if how == "removed":
        path.unlink()
    else:
        os.truncate(path, {"empty": 0, "cut": path.stat().st_size // 2, "longer": 10**6}[how])


@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("how", ["removed", "empty", "cut", "longer"])
def test_store_of_other_sizes_is_written_again(tmp_path, caplog, name, how):
    write(tmp_path)
    whole = files(tmp_path)
    assert write(tmp_path) == ROWS
    damaged(tmp_path, name, how)
    with caplog.at_level(logging.WARNING):
        assert write(tmp_path) == 0
    assert f"damaged and will be written again: {tmp_path / name} " in caplog.text
    assert files(tmp_path) == whole
    assert sorted(os.listdir(tmp_path)) == sorted(FILES)


def test_part_that_was_cut_off_is_not_filled_with_zeros(tmp_path):
    write(tmp_path)
    whole = files(tmp_path)
    for name in FILES:
        (tmp_path / name).unlink()
    writer = DatastoreWriter(str(tmp_path / "dstore"), small_manifest(), 0, ROWS, note_every=0)
    keys, values = small_rows()
    writer.write(0, keys[:1000], values[:1000])
    writer.close()
    os.truncate(tmp_path / "dstore_vals.npy.partial", 100)
    assert write(tmp_path) == 0
    assert files(tmp_path) == whole


def test_manifest_tells_sizes_and_checksums(tmp_path):
    write(tmp_path)
    manifest = Manifest.read(str(tmp_path / "dstore"))
    assert (manifest.keys_bytes, manifest.values_bytes) == (ROWS * DIMENSION * 2, ROWS * 8)
    assert len({manifest.keys_checksum, manifest.values_checksum, None}) == 3
    # Manifests of earlier versions stay readable, and their stores complete.
    content = json.loads((tmp_path / "dstore.json").read_text())
    for field in ("keys_bytes", "values_bytes", "keys_checksum", "values_checksum"):
        del content[field]
    (tmp_path / "dstore.json").write_text(json.dumps(content))
    assert write(tmp_path) == ROWS
    assert open_datastore(str(tmp_path / "dstore")).rows == ROWS


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("complete", "false", "true or false"),
        ("key_dtype", "float64", "float16 or float32"),
        ("value_dtype", "float32", "int64 or int32 or int16"),
        ("metric", "dot", "l2 or ip or cos"),
        ("num_shards", "2", "an integer"),
        ("values_bytes", "12000", "an integer"),
    ],
)
def test_fields_of_a_manifest(tmp_path, field, value, wanted):
    prefix = stored(tmp_path)
    content = json.loads((tmp_path / "dstore.json").read_text())
    (tmp_path / "dstore.json").write_text(json.dumps({**content, field: value}))
    with pytest.raises(DatastoreError, match=f"dstore.json: {field} must be {wanted}, not '{value}'"):
        open_datastore(prefix)


@pytest.mark.parametrize(
    "note",
    [
        '{"end": 1500, "done": 3}',
        '{"begin": 0, "end": 1500, "done": "3"}',
        '{"begin": 0, "end": 1500, "done": 1501}',
        '{"begin": 0, "end": 1500, "done": 10000000000000000000000000}',
        "[]",
        "[" * 100_000,
        "",
    ],
)
def test_notes_that_are_no_notes(tmp_path, note):
    DatastoreWriter(str(tmp_path / "dstore"), small_manifest(), 0, ROWS).close()
    (tmp_path / "dstore.shard-0-of-1.json").write_text(note)
    with pytest.raises(DatastoreError, match="dstore.shard-0-of-1.json"):
        DatastoreWriter(str(tmp_path / "dstore"), small_manifest(), 0, ROWS)


def test_notes_of_version_0_1_0(tmp_path):
    writer = DatastoreWriter(str(tmp_path / "dstore"), small_manifest(), 0, ROWS, note_every=0)
    keys, values = small_rows()
    writer.write(0, keys[:700], values[:700])
    writer.close()
    (tmp_path / "dstore.shard-0-of-1.json").write_text('{"begin": 0, "end": 1500, "done": 700}')
    assert write(tmp_path) == 700


@pytest.mark.parametrize("name", [*FILES[:2]])
@pytest.mark.parametrize("kind", ["symlink", "link", "mkfifo"])
def test_planted_parts(tmp_path, name, kind):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    planted = (str(tmp_path / f"{name}.partial"),)
    getattr(os, kind)(*([str(victim)] if kind != "mkfifo" else []), *planted)
    with pytest.raises(DatastoreError, match=f"{name}.partial .*: remove it"):
        write(tmp_path)
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["trained.tmp", "partial.tmp", "partial", "trained"])
def test_planted_names_of_an_index(tmp_path, name):
    stored(tmp_path)
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    os.symlink(victim, tmp_path / f"knn.l2.{name}")
    build(tmp_path)
    assert victim.read_bytes() == b"mine"
    assert open_index(str(tmp_path / "knn.l2")).rows == ROWS


@pytest.mark.parametrize("how", ["empty", "cut", "longer", "removed"])
def test_index_of_another_size_is_built_again(tmp_path, how):
    stored(tmp_path)
    build(tmp_path)
    whole = finished_files(tmp_path)
    damaged(tmp_path, "knn.l2", how)
    with pytest.raises(DatastoreError, match="is not complete.*: run trime-build-index again"):
        open_index(str(tmp_path / "knn.l2"))
    build(tmp_path)
    assert finished_files(tmp_path) == whole


def test_flipped_bits_of_an_index(tmp_path):
    stored(tmp_path)
    path = build(tmp_path)
    whole = Path(path).read_bytes()
    draw = np.random.default_rng(0)
    for offset in draw.integers(0, len(whole), 20).tolist():
        flip(path, offset)
        with pytest.raises(DatastoreError, match="its checksum .* remove it and run trime-build-index"):
            open_index(path)
        Path(path).write_bytes(whole)
    flip(path)
    with pytest.raises(DatastoreError, match="damaged"):
        build(tmp_path, probe=5)
    # The advice leads out.
    os.unlink(path)
    build(tmp_path)
    assert open_index(path).rows == ROWS


@pytest.mark.parametrize("name", ["trained", "partial"])
def test_flipped_bits_of_a_half_built_index(tmp_path, caplog, name, monkeypatch):
    stored(tmp_path)
    build(tmp_path)
    whole = finished_files(tmp_path)
    (tmp_path / "knn.l2").unlink()
    if name == "partial":
        stop_after(monkeypatch, 3)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path)
        monkeypatch.undo()
    flip(tmp_path / f"knn.l2.{name}")
    with caplog.at_level(logging.INFO):
        build(tmp_path)
    assert f"knn.l2.{name} is damaged and does not count (its checksum is another)" in caplog.text
    assert "continuing" not in caplog.text
    assert finished_files(tmp_path) == whole


def stop_after(monkeypatch, chunks):
    from trime_fairseq.datastore.index import growing

    add, left = growing.GrowingIndex.add, chunks

    def add_or_stop(self, keys):
        nonlocal left
        add(self, keys)
        left -= 1
        if not left:
            raise KeyboardInterrupt

    monkeypatch.setattr(growing.GrowingIndex, "add", add_or_stop)


@pytest.mark.parametrize("name", ["dstore_vals.npy", "dstore-fp16_keys.npy", "dstore.json"])
def test_pipes_in_the_place_of_files(tmp_path, name):
    prefix = stored(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(DatastoreError, match=name):
        open_datastore(prefix, need_keys=True)


def test_streamed_values_that_are_damaged(tmp_path, caplog):
    stream(tmp_path, pieces=ROWS)
    whole = finished_files(tmp_path)
    for how in ("cut", "removed"):
        damaged(tmp_path, "dstore_vals.npy", how)
        with caplog.at_level(logging.INFO):
            stream(tmp_path, pieces=ROWS)
        assert "will be written again" in caplog.text
        assert finished_files(tmp_path) == whole
