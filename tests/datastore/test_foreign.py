"""Values, keys, ids and indexes that are another store's or another tool's: never searched."""

import json
import logging
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from trime_fairseq.datastore import (
    DatastoreError,
    Index,
    IndexConfig,
    Retriever,
    check_keys,
    check_values,
    open_datastore,
    open_index,
)
from trime_fairseq.datastore.index.checks import check_index
from trime_fairseq.datastore.layout import keys_path, values_path

from .small_stores import (
    CONFIG,
    DIMENSION,
    ROWS,
    build,
    small_manifest,
    small_rows,
    stored,
    write,
)

faiss = pytest.importorskip("faiss")


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


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IDMap,Flat", "IVF8,PQ4x4fs", "IDMap,IVF8,Flat"])
def test_rows_that_are_there_twice(tmp_path, factory):
    """As many ids as rows, all of them in range."""
    assert open_index(with_ids(tmp_path, lambda ids: ids[::-1].copy(), factory), metric="ip").rows == ROWS
    path = with_ids(tmp_path, lambda ids: ids // 2 * 2, factory)
    with pytest.raises(DatastoreError, match=f"lacks {ROWS // 2:,} rows of the datastore, others are there"):
        open_index(path, metric="ip")


@pytest.mark.parametrize("cut", ["cut", "removed"])
def test_lists_in_a_file_of_their_own(tmp_path, cut):
    """Faiss maps it and would die of the first list that is not there."""
    index = faiss.read_index(with_ids(tmp_path, lambda ids: ids))
    file = str(tmp_path / "lists.ivfdata")
    inverted = faiss.extract_index_ivf(index)
    lists = faiss.OnDiskInvertedLists(inverted.nlist, inverted.code_size, file)
    parts = faiss.InvertedListsPtrVector()
    parts.push_back(inverted.invlists)
    lists.merge_from_multiple(parts.data(), 1)
    inverted.replace_invlists(lists, False)
    path = str(tmp_path / "ondisk.ip")
    faiss.write_index(index, path)
    assert open_index(path).rows == ROWS
    if cut == "removed":
        os.unlink(file)
    else:
        os.truncate(file, 100)
    with pytest.raises(DatastoreError, match="lists.ivfdata.*cut off|ondisk.ip cannot be read"):
        open_index(path)


@pytest.mark.parametrize("factory", ["Flat", "IVF8,PQ4"])
def test_keys_of_which_a_part_was_lost(tmp_path, factory):
    stored(tmp_path)
    store, index = open_datastore(str(tmp_path / "dstore")), exact(tmp_path, factory)
    check_keys(index, store)
    keys = np.memmap(
        keys_path(store.prefix, str(store.keys.dtype)), store.keys.dtype, "r+", shape=store.keys.shape
    )
    keys[-ROWS // 10 :] = 0
    keys.flush()
    with pytest.raises(DatastoreError, match="keys.npy holds zeros where the index .* has keys"):
        check_keys(index, store)


def test_an_index_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "knn.ip")
    for path in (tmp_path / "knn.ip", tmp_path):
        with pytest.raises(DatastoreError, match="is no regular file: give the file that Faiss wrote"):
            open_index(str(path))


def test_an_index_of_other_tools_is_not_replaced(tmp_path):
    stored(tmp_path)
    path = tmp_path / "knn.l2"
    path.write_bytes(b"somebody's index")
    with pytest.raises(
        DatastoreError, match=f"^`name`: {path} was not written by this builder.*choose another"
    ):
        build(tmp_path)
    assert path.read_bytes() == b"somebody's index"
    assert not (tmp_path / "knn.l2.trained").exists()
