"""A datastore in a folder, as published for translation: keys.npy, vals.npy, and our manifest.json."""

import os

import numpy as np
import pytest

from trime_fairseq.cli.build_index import main as build_index
from trime_fairseq.cli.datastore import main as trime_datastore
from trime_fairseq.datastore import DatastoreError, DatastoreWriter, Manifest, StreamingIndex, open_datastore
from trime_fairseq.datastore.layout import (
    all_files,
    folder_prefix,
    is_folder,
    keys_path,
    manifest_path,
    note_path,
    values_path,
)

from .small_stores import CHUNK, CONFIG, DIMENSION, ROOT, ROWS, small_manifest, small_rows

PUBLISHED = ROOT / "tests" / "reference" / "mt" / "datastore"
OF_TRANSLATION = dict(
    sample_break_mode=None,
    tokens_per_sample=None,
    context_window=None,
    context_full_only=None,
    key_type="model_output",
    languages="de-en",
    sentences=70,
    sentences_hash="sentences",
)


def write(prefix, begin=0, end=ROWS, shard=0, **changes):
    """Writes rows of ``small_rows``; the row from which it went on."""
    writer = DatastoreWriter(prefix, small_manifest(**changes), begin, end, shard)
    try:
        first = writer.resume_row
        if first < end:
            writer.write(first, *(rows[first:end] for rows in small_rows()))
        writer.finish()
    finally:
        writer.close()
    return first


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_paths(tmp_path):
    new, there = str(tmp_path / "new"), str(tmp_path / "there")
    os.mkdir(there)
    assert not is_folder(new)
    assert keys_path(new, "float16") == f"{new}-fp16_keys.npy"
    assert folder_prefix(new) == f"{new}/" == folder_prefix(f"{new}/")
    for prefix in (f"{new}/", f"{there}/", there):
        assert is_folder(prefix)
        folder = prefix.rstrip("/")
        assert {keys_path(prefix, dtype) for dtype in ("float16", "float32")} == {f"{folder}/keys.npy"}
        assert values_path(prefix) == f"{folder}/vals.npy"
        assert manifest_path(prefix) == f"{folder}/manifest.json"
        assert note_path(prefix, 1, 3) == f"{folder}/shard-1-of-3.json"
        assert all_files(prefix) == f"{folder}/*"


@pytest.mark.parametrize("ending", ["", ".partial"])
def test_a_prefix_beside_a_folder_of_its_name_stays_one(tmp_path, ending):
    (tmp_path / "d").mkdir()
    (tmp_path / f"d_vals.npy{ending}").touch()
    assert not is_folder(str(tmp_path / "d"))
    assert is_folder(str(tmp_path / "d") + "/")


def test_written_continued_and_read(tmp_path):
    folder = tmp_path / "deep" / "d"
    assert write(f"{folder}/") == 0
    assert names(folder) == ["keys.npy", "manifest.json", "vals.npy"]
    keys, values = small_rows()
    assert (folder / "keys.npy").read_bytes() == keys.tobytes()
    assert (folder / "vals.npy").read_bytes() == values.tobytes()
    # With or without the slash it is the same store.
    assert write(str(folder)) == ROWS
    store = open_datastore(str(folder))
    assert np.array_equal(store.keys, keys)
    assert np.array_equal(store.values, values)
    with pytest.raises(
        DatastoreError, match=r"d is a complete datastore .*subset train / valid.* remove .*d/\*"
    ):
        write(str(folder), subset="valid")


def test_shards_and_damage(tmp_path):
    folder = tmp_path / "d"
    write(f"{folder}/", 900, ROWS, 1, num_shards=2)
    assert "shard-1-of-2.json" in names(folder)
    with pytest.raises(DatastoreError, match="is not complete"):
        open_datastore(str(folder))
    with pytest.raises(DatastoreError, match=r"shard-1-of-2.json is of rows 900 to 1,500.* remove .*d/\*"):
        write(f"{folder}/", 800, ROWS, 1, num_shards=2)
    write(f"{folder}/", 0, 900, 0, num_shards=2)
    assert names(folder) == ["keys.npy", "manifest.json", "vals.npy"]
    assert open_datastore(str(folder)).rows == ROWS
    os.truncate(folder / "keys.npy", 1000)
    assert write(str(folder), num_shards=2, end=900) == 0


def test_a_store_of_another_program_is_not_replaced(tmp_path):
    small_rows()[0].tofile(tmp_path / "keys.npy")
    with pytest.raises(DatastoreError, match="keys.npy is there already, without a manifest"):
        write(str(tmp_path))


def test_manifest_of_a_translation(tmp_path, capsys):
    write(f"{tmp_path}/d/", **OF_TRANSLATION)
    manifest = Manifest.read(f"{tmp_path}/d")
    assert OF_TRANSLATION.items() <= vars(manifest).items()
    other = small_manifest(**{**OF_TRANSLATION, "sentences_hash": "others"})
    assert list(manifest.conflicts(other)) == ["sentences_hash"]
    assert manifest.fingerprint() != other.fingerprint()
    assert trime_datastore(["info", f"{tmp_path}/d"]) == 0
    said = capsys.readouterr().out
    assert "languages:       de-en" in said
    assert "sentences:       70" in said
    assert "sample-break-mode" not in said


def test_fingerprints_of_language_models_stay():
    """Indexes of earlier versions note them."""
    assert small_manifest().fingerprint().startswith("e24c8d3f1c32")


@pytest.mark.parametrize("slash", ["", "/"])
def test_index_in_the_folder(tmp_path, slash):
    write(f"{tmp_path}/d/")
    words = f"--dstore_mmap {tmp_path}/d{slash} --faiss_index {tmp_path}/d/knn_index --factory Flat --dist l2"
    assert build_index(words.split()) == 0
    assert {"knn_index.l2", "knn_index.l2.json"} < set(names(tmp_path / "d"))
    assert trime_datastore(["verify", f"{tmp_path}/d", "--indexfile", f"{tmp_path}/d/knn_index.l2"]) == 0


def test_streamed(tmp_path):
    folder = f"{tmp_path}/d/"
    index = StreamingIndex(folder, small_manifest(), CONFIG, f"{folder}knn_index", chunk=CHUNK)
    index.write(0, *small_rows())
    index.finish()
    index.close()
    assert {"manifest.json", "vals.npy", "knn_index.l2"} < set(names(tmp_path / "d"))
    assert not open_datastore(folder).manifest.keys_stored
    with pytest.raises(DatastoreError, match="was streamed"):
        open_datastore(folder, need_keys=True)


def test_published_files():
    store = open_datastore(str(PUBLISHED), fp16=True, likely_dimension=64)
    assert (store.rows, store.dimension, store.keys.dtype, store.manifest) == (7139, 64, np.float16, None)
    for settings, message in (
        (dict(likely_dimension=64), "keys.npy has the size of float16 keys of dimension 64: pass `fp16`"),
        (dict(fp16=True, dimension=32), "keys.npy has the size of float32 keys .*: leave out `fp16`"),
        (dict(fp16=True, rows=7000), "vals.npy has 57,112 bytes, not those of 7,000 x 1"),
        (dict(fp16=True, dimension=60), "keys.npy has 913,792 bytes, not those of 7,139 x 60"),
    ):
        with pytest.raises(DatastoreError, match=message):
            open_datastore(str(PUBLISHED), **settings)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_published_indexes(metric, capsys):
    """Their names are knn_index_ip and knn_index_l2, and nothing describes them."""
    index = str(PUBLISHED / f"knn_index_{metric}")
    assert trime_datastore(["verify", str(PUBLISHED), "--indexfile", index]) == 0
    assert trime_datastore(["info", index]) == 0
    assert f"metric:          {metric}" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_types_that_nothing_describes(tmp_path, capsys, dtype):
    keys, values = small_rows(dtype=dtype)
    keys.tofile(tmp_path / "keys.npy")
    values.tofile(tmp_path / "vals.npy")
    assert trime_datastore(["info", str(tmp_path)]) == 0
    assert f"{DIMENSION} x {dtype}, if so" in capsys.readouterr().out
    assert trime_datastore(["verify", str(tmp_path)]) == 0
    other = "float32" if dtype == "float16" else "float16"
    with pytest.raises(DatastoreError, match=f"has the size of {dtype} keys of dimension {DIMENSION}"):
        open_datastore(str(tmp_path), fp16=other == "float16", likely_dimension=DIMENSION)
    words = f"--dstore-mmap {tmp_path} --dimension {DIMENSION} --faiss-index {tmp_path}/knn --factory Flat"
    fp16 = ["--dstore-fp16"] if dtype == "float16" else []
    assert build_index([*words.split(), *fp16]) == 0
    index = str(tmp_path / "knn.l2")
    assert trime_datastore(["verify", str(tmp_path), "--indexfile", index]) == 0


def test_a_folder_without_a_store(tmp_path, capsys):
    for command in ("info", "verify"):
        assert trime_datastore([command, str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "neither the prefix of a datastore nor an index" in said
    assert f"there is no datastore {tmp_path}" in said
