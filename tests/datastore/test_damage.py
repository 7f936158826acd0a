"""Datastores and indexes that are damaged, another's or foreign: never complete, never searched."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trime_fairseq.cli.build_index import main as build_command
from trime_fairseq.datastore import (
    Datastore,
    DatastoreError,
    DatastoreWriter,
    Index,
    IndexConfig,
    Manifest,
    Retriever,
    check_keys,
    check_values,
    open_datastore,
    open_index,
)
from trime_fairseq.datastore.datastore import keys_path, values_path
from trime_fairseq.datastore.index.checks import check_index

from .small_stores import (
    CONFIG,
    DIMENSION,
    ROWS,
    build,
    finished_files,
    small_manifest,
    small_rows,
    stored,
    stream,
)

faiss = pytest.importorskip("faiss")
FILES = ("dstore-fp16_keys.npy", "dstore_vals.npy", "dstore.json")


def write(folder, **changes):
    """The resume row of a run that writes ``small_rows``."""
    manifest = small_manifest(**changes)
    writer = DatastoreWriter(str(folder / "dstore"), manifest, 0, ROWS)
    try:
        keys, values = small_rows()
        first = writer.resume_row
        if first < ROWS:
            writer.write(first, keys[first:], values[first:])
        writer.finish()
    finally:
        writer.close()
    return first


def files(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def flip(path, offset=None, bit=0x10):
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2 if offset is None else offset] ^= bit
    Path(path).write_bytes(content)


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


def exact(folder, factory="Flat", metric="ip"):
    return open_index(build(folder, IndexConfig(metric, DIMENSION, factory, training_keys=700)))


def search(store, index, **settings):
    keys = torch.from_numpy(small_rows()[0].astype(np.float32))
    return Retriever(index, store, k=5, **settings).search(keys)


def test_index_of_another_metric_under_this_name(tmp_path):
    stored(tmp_path)
    for metric in ("ip", "l2"):
        build(tmp_path, replace(CONFIG, metric=metric))
    for change in ({}, {"checksum": None, "bytes": None}):
        content = {**json.loads((tmp_path / "knn.ip.json").read_text()), **change}
        (tmp_path / "knn.ip.json").write_text(json.dumps(content))
        shutil.copy(tmp_path / "knn.l2", tmp_path / "knn.ip")
        with pytest.raises(DatastoreError, match="checksum|is not the index that .*knn.ip.json describes"):
            open_index(str(tmp_path / "knn.ip"))
    (tmp_path / "knn.ip.json").unlink()
    with pytest.raises(DatastoreError, match="`metric` ip: .* was built for l2"):
        open_index(str(tmp_path / "knn.ip"), metric="ip")


def with_ids(folder, change, factory="IVF8,Flat"):
    """An index of other tools whose ids were changed by a function."""
    index = IndexConfig("ip", DIMENSION, factory, training_keys=700).new_index()
    keys = small_rows()[0].astype(np.float32)
    index.train(keys)
    index.add_with_ids(keys, change(np.arange(ROWS)))
    faiss.write_index(index, str(folder / "other.ip"))
    return str(folder / "other.ip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: -ids - 1, "ids from -1,[45].* its datastore has rows from 0 to 1,499"),
        (lambda ids: ids + 1, "to 1,500, its datastore"),
        (lambda ids: np.where(ids == 7, 2**40, ids), "to 1,099,511,627,776"),
        (lambda ids: np.where(ids == 7, -7, ids), "ids from -7"),
    ],
)
@pytest.mark.parametrize("factory", ["IVF8,Flat", "IDMap,Flat", "IVF8,PQ4x4fs"])
def test_ids_out_of_range(tmp_path, change, message, factory):
    with pytest.raises(DatastoreError, match=f"{message}.*remove it and build it again"):
        open_index(with_ids(tmp_path, change, factory))


def test_ids_that_only_a_search_finds(tmp_path):
    """A retriever that was given an index of its own making."""
    stored(tmp_path)
    store = open_datastore(str(tmp_path / "dstore"))
    index = faiss.read_index(with_ids(tmp_path, lambda ids: ids + 100))
    with pytest.raises(DatastoreError, match="found rows from .* of 1,500: it is damaged"):
        search(store, Index("x", index, None, "ip"), probe=8)


def test_lists_that_are_never_visited(tmp_path):
    path = with_ids(tmp_path, lambda ids: ids)
    index = faiss.read_index(path)
    index.nprobe = 0
    with pytest.raises(DatastoreError, match="visits no list"):
        check_index(index, path, 0, ROWS)


@pytest.mark.parametrize("value", [2**40, 50, -7])
def test_values_that_no_dictionary_has(tmp_path, value):
    write(tmp_path)
    prefix = str(tmp_path / "dstore")
    store = open_datastore(prefix)
    check_values(store, 50)
    values = small_rows()[1]
    values[::2] = value
    values.tofile(values_path(prefix))
    with pytest.raises(DatastoreError, match="dstore_vals.npy is not what was written: its checksum"):
        check_values(open_datastore(prefix), 50)
    # Of an earlier version, or of other tools: by their range.
    small_manifest(complete=True).write(prefix)
    store = open_datastore(prefix)
    with pytest.raises(DatastoreError, match="no token of a dictionary|has 50 symbols"):
        check_values(store, 50)
    if value < 0:
        with pytest.raises(DatastoreError, match="-7, which is no token"):
            Retriever(exact(tmp_path), store, k=3)


@pytest.mark.parametrize("with_manifest", [True, False])
def test_values_of_another_store_of_the_same_size(tmp_path, caplog, with_manifest):
    """The index notes the values that it was built beside."""
    prefix = stored(tmp_path)
    if not with_manifest:
        os.unlink(f"{prefix}.json")
    options = {} if with_manifest else {"fp16": True, "dimension": DIMENSION}
    from trime_fairseq.datastore import build_index

    path = build_index(open_datastore(prefix, **options), CONFIG, str(tmp_path / "knn"))
    open_index(path).check(open_datastore(prefix, **options), DIMENSION)
    values = small_rows()[1]
    values[[3, 4]] = values[3] + 1, values[4] + 2
    values.tofile(values_path(prefix))
    other = open_datastore(prefix, **options)
    with pytest.raises(DatastoreError, match="was built from another datastore .*: build it again"):
        open_index(path).check(other, DIMENSION)
    with caplog.at_level(logging.INFO):
        build_index(other, CONFIG, str(tmp_path / "knn"))
    assert "values_checksum" in caplog.text
    open_index(path).check(other, DIMENSION)


@pytest.mark.parametrize(
    ("factory", "metric"),
    [
        ("Flat", "ip"),
        ("HNSW8,Flat", "l2"),
        ("IVF8,Flat", "cos"),
        ("IVF8,PQ1", "ip"),
        ("IVF8,PQ4", "l2"),
        ("OPQ4,IVF8,PQ4", "cos"),
    ],
)
def test_keys_of_another_model(tmp_path, metric, factory):
    prefix = stored(tmp_path)
    index = exact(tmp_path, factory, metric)
    store = open_datastore(prefix)
    check_keys(index, store)
    other = np.random.default_rng(7).standard_normal((ROWS, DIMENSION)).astype(np.float16)
    other.tofile(keys_path(prefix, "float16"))
    with pytest.raises(DatastoreError, match="the keys of .*dstore-fp16_keys.npy are not those of the index"):
        check_keys(index, open_datastore(prefix))
    with pytest.raises(DatastoreError, match="are not those of the index"):
        search(open_datastore(prefix), index, similarity=metric)
    if metric == "ip":
        # Where they are not read they do not matter.
        search(open_datastore(prefix), index)
    other[:] = np.nan
    other.tofile(keys_path(prefix, "float16"))
    with pytest.raises(DatastoreError, match="hold NaN or infinity"):
        check_keys(index, open_datastore(prefix))


@pytest.mark.parametrize(("built", "said"), [("ip", "cos"), ("cos", "ip")])
def test_keys_that_were_or_were_not_normalised(tmp_path, built, said):
    prefix = stored(tmp_path, 10 * small_rows()[0])
    index = exact(tmp_path, "IVF8,PQ4", built)
    check_keys(index, open_datastore(prefix))
    with pytest.raises(DatastoreError, match="differ in length .*: one was normalised for cos"):
        check_keys(replace(index, metric=said), open_datastore(prefix))


def test_index_of_what_is_no_number(tmp_path):
    prefix = stored(tmp_path)
    keys = small_rows()[0].astype(np.float32)
    keys[::3] = np.nan
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(keys)
    with pytest.raises(DatastoreError, match="the index x holds NaN or infinity"):
        check_keys(Index("x", flat, None, "ip"), open_datastore(prefix))


def test_one_key_that_is_no_number(tmp_path):
    prefix = stored(tmp_path)
    keys = small_rows()[0]
    index = exact(tmp_path, "IVF8,PQ4x4fs")
    keys[3] = np.nan
    keys.tofile(keys_path(prefix, "float16"))
    with pytest.raises(DatastoreError, match="scores of neighbours are no numbers"):
        search(open_datastore(prefix), index, similarity="ip", probe=8)


@pytest.mark.parametrize(("dtype", "largest"), [("int16", 2**15 - 1), ("int32", 2**31 - 1)])
def test_narrow_values_of_other_tools(tmp_path, dtype, largest):
    """kNN-LM writes int16 beside float16 keys."""
    prefix = stored(tmp_path)
    os.unlink(f"{prefix}.json")
    values = small_rows()[1]
    values[5] = largest
    values.astype(dtype).tofile(values_path(prefix))
    for known in ({"dimension": DIMENSION}, {"likely_dimension": DIMENSION}, {"rows": ROWS}):
        store = open_datastore(prefix, fp16=True, **known)
        assert store.values.dtype == dtype
        assert np.array_equal(store.values, values)
    index = Index("x", faiss.IndexFlatIP(DIMENSION), None, "ip")
    index.faiss.add(small_rows()[0].astype(np.float32))
    found = search(store, index)
    assert np.array_equal(found.tokens, values[found.rows])
    values[5] += 1
    values.astype(dtype).tofile(values_path(prefix))
    with pytest.raises(DatastoreError, match=rf"which is no token .* of another type than {dtype}"):
        check_values(open_datastore(prefix, fp16=True, dimension=DIMENSION))


@pytest.mark.parametrize("name", ["dstore_vals.npy", "dstore-fp16_keys.npy", "dstore.json"])
def test_pipes_in_the_place_of_files(tmp_path, name):
    prefix = stored(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(DatastoreError, match=name):
        open_datastore(prefix, need_keys=True)


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
        ("--ncentroids 1000000000", "--ncentroids 1,000,000,000: must be at most 4,194,304"),
        ("--seed -1", "--seed -1: must be at least 0"),
        (f"--seed {10**30}", "must be at most"),
        ("--probe -3", "--probe -3: must be at least 1"),
        (f"--probe {10**12}", "--probe 1,000,000,000,000: must be at most 2,147,483,647"),
        ("--num_training_keys 0", "--num_training_keys 0: must be at least 1"),
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
    with pytest.raises(DatastoreError, match=f"`{setting}` {number}: must be at least 1"):
        Retriever(index, store, **{"k": 2, setting: number})


def test_streamed_values_that_are_damaged(tmp_path, caplog):
    stream(tmp_path, pieces=ROWS)
    whole = finished_files(tmp_path)
    for how in ("cut", "removed"):
        damaged(tmp_path, "dstore_vals.npy", how)
        with caplog.at_level(logging.INFO):
            stream(tmp_path, pieces=ROWS)
        assert "will be written again" in caplog.text
        assert finished_files(tmp_path) == whole
