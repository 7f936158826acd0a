"""Writing a datastore: in pieces, by several processes, killed, on a full disk."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from trime_fairseq.datastore import (
    BackgroundSink,
    DatastoreError,
    DatastoreWriter,
    Manifest,
    open_datastore,
)
from trime_fairseq.datastore.datastore import finite
from trime_fairseq.datastore.layout import manifest_path

from .small_stores import small_manifest

ROWS, DIMENSION = 1000, 8
FILES = ("-fp16_keys.npy", "_vals.npy", ".json")


def manifest(**changes):
    return small_manifest(**{"rows": ROWS, "dimension": DIMENSION, **changes})


def rows(begin, end):
    keys = np.arange(begin * DIMENSION, end * DIMENSION, dtype=np.float32).reshape(-1, DIMENSION) / 999
    return keys.astype(np.float16), np.arange(begin, end, dtype=np.int64) * 3


def fill(writer, begin, end, step=70):
    for row in range(begin, end, step):
        writer.write(row, *rows(row, min(row + step, end)))


def written(prefix):
    return {ending: open(f"{prefix}{ending}", "rb").read() for ending in FILES}


@pytest.fixture
def whole(tmp_path):
    """What an uninterrupted run writes."""
    prefix = str(tmp_path / "whole")
    writer = DatastoreWriter(prefix, manifest(), 0, ROWS)
    fill(writer, 0, ROWS)
    writer.finish()
    writer.close()
    return written(prefix)


def test_legacy_layout(tmp_path, whole):
    keys, values = rows(0, ROWS)
    assert whole["-fp16_keys.npy"] == keys.tobytes()
    assert whole["_vals.npy"] == values.tobytes()
    assert sorted(os.listdir(tmp_path)) == sorted(f"whole{ending}" for ending in FILES)
    store = open_datastore(str(tmp_path / "whole"))
    assert np.array_equal(store.keys, keys)
    assert np.array_equal(store.values, values)
    # A store of the published tools: the same without the manifest.
    os.unlink(tmp_path / "whole.json")
    legacy = open_datastore(str(tmp_path / "whole"), fp16=True)
    assert (legacy.rows, legacy.dimension) == (ROWS, DIMENSION)
    assert legacy.fingerprint() == legacy.fingerprint() != store.fingerprint()


def test_shards_in_any_order(tmp_path, whole):
    prefix = str(tmp_path / "sharded")
    ranges = [(0, 300), (300, 700), (700, ROWS)]
    for shard in (2, 0, 1):
        begin, end = ranges[shard]
        writer = DatastoreWriter(prefix, manifest(num_shards=3), begin, end, shard)
        fill(writer, begin, end)
        assert not os.path.exists(f"{prefix}_vals.npy")
        with pytest.raises(DatastoreError, match="is not complete"):
            open_datastore(prefix)
        writer.finish()
        writer.close()
    assert {**written(prefix), ".json": b""} == {**whole, ".json": b""}
    again = DatastoreWriter(prefix, manifest(), 0, ROWS)
    assert again.is_complete
    assert again.resume_row == ROWS
    again.finish()
    again.close()


def test_rows_may_come_again(tmp_path, whole):
    prefix = str(tmp_path / "whole2")
    writer = DatastoreWriter(prefix, manifest(), 0, ROWS, note_every=0)
    fill(writer, 0, 420)
    writer.close()
    writer = DatastoreWriter(prefix, manifest(), 0, ROWS)
    assert writer.resume_row == 420
    fill(writer, 350, ROWS, step=90)
    writer.finish()
    writer.close()
    assert written(prefix) == whole


CHILD = """
import sys, time
from tests.datastore.test_writer import DatastoreWriter, fill, manifest, ROWS
writer = DatastoreWriter(sys.argv[1], manifest(), 0, ROWS, note_every=0)
print(writer.resume_row, flush=True)
row = writer.resume_row
while row < ROWS:
    fill(writer, row, min(row + 9, ROWS), step=9)
    row += 9
    time.sleep(0.002)
writer.finish()
"""


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, whole):
    prefix = str(tmp_path / "whole")
    for ending in FILES:
        os.unlink(prefix + ending)
    draw = random.Random(1)
    resumed = []
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CHILD, prefix], stdout=subprocess.PIPE, text=True)
        resumed.append(int(child.stdout.readline()))
        time.sleep(draw.uniform(0.01, 0.15))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    subprocess.run([sys.executable, "-c", CHILD, prefix], check=True, stdout=subprocess.DEVNULL)
    # After a note of progress, once at least.
    assert resumed[-1] > 0
    assert written(prefix) == whole


def test_killed_between_the_last_steps(tmp_path, whole):
    """The keys have their name already, the manifest does not say so yet."""
    prefix = str(tmp_path / "whole")
    complete = json.loads(whole[".json"])
    (tmp_path / "whole.json").write_text(json.dumps({**complete, "complete": False}))
    os.rename(f"{prefix}_vals.npy", f"{prefix}_vals.npy.partial")
    note = {"begin": 0, "end": ROWS, "done": ROWS}
    (tmp_path / "whole.shard-0-of-1.json").write_text(json.dumps(note))
    writer = DatastoreWriter(prefix, manifest(), 0, ROWS)
    assert writer.resume_row == ROWS
    writer.finish()
    writer.close()
    assert written(prefix) == whole


def test_arrays_removed_but_not_their_notes(tmp_path):
    prefix = str(tmp_path / "store")
    writer = DatastoreWriter(prefix, manifest(), 0, ROWS, note_every=0)
    fill(writer, 0, 420)
    writer.close()
    os.unlink(f"{prefix}-fp16_keys.npy.partial")
    writer = DatastoreWriter(prefix, manifest(), 0, ROWS)
    assert writer.resume_row == 0
    writer.close()


def test_arrays_removed_under_several_shards(tmp_path):
    """A shard that was complete must not be believed when its rows are gone."""
    prefix = str(tmp_path / "store")
    for shard, (begin, end) in enumerate(((0, 500), (500, ROWS))):
        writer = DatastoreWriter(prefix, manifest(num_shards=2), begin, end, shard)
        fill(writer, begin, end - 100 * (1 - shard))
        if shard:
            writer.finish()
        writer.close()
    for path in tmp_path.glob("*.partial"):
        path.unlink()
    writer = DatastoreWriter(prefix, manifest(num_shards=2), 0, 500, 0)
    fill(writer, 0, 500)
    writer.finish()
    writer.close()
    assert not Manifest.read(prefix).complete
    writer = DatastoreWriter(prefix, manifest(num_shards=2), 500, ROWS, 1)
    assert writer.resume_row == 500
    writer.close()


def test_two_writers(tmp_path):
    prefix = str(tmp_path / "store")
    first = DatastoreWriter(prefix, manifest(), 0, ROWS)
    with pytest.raises(DatastoreError, match="another process writes the datastore"):
        DatastoreWriter(prefix, manifest(), 0, ROWS)
    first.close()
    DatastoreWriter(prefix, manifest(), 0, ROWS).close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint_hash": "x"}, "unfinished datastore of something else .*checkpoint_hash model / x"),
        ({"num_shards": 2}, "num_shards 1 / 2"),
        ({"rows": 900}, "rows 1000 / 900"),
    ],
)
def test_another_store_under_this_prefix(tmp_path, changes, message):
    prefix = str(tmp_path / "store")
    DatastoreWriter(prefix, manifest(), 0, ROWS).close()
    with pytest.raises(DatastoreError, match=message):
        DatastoreWriter(prefix, manifest(**changes), 0, ROWS)


def test_another_batch_size_moves_the_ranges_of_shards(tmp_path):
    prefix = str(tmp_path / "store")
    writer = DatastoreWriter(prefix, manifest(num_shards=2), 0, 500, note_every=0)
    fill(writer, 0, 70)
    writer.close()
    with pytest.raises(DatastoreError, match="is of rows 0 to 500, this run would write 0 to 480"):
        DatastoreWriter(prefix, manifest(num_shards=2), 0, 480)


def test_foreign_files(tmp_path):
    (tmp_path / "store_vals.npy").write_bytes(b"12345678")
    with pytest.raises(DatastoreError, match="is there already, without a manifest"):
        DatastoreWriter(str(tmp_path / "store"), manifest(), 0, ROWS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_nan_and_infinity(tmp_path, bad, dtype):
    writer = DatastoreWriter(str(tmp_path / "store"), manifest(key_dtype=dtype), 0, ROWS)
    keys, values = rows(0, 10)
    keys = keys.astype(dtype)
    assert finite(keys)
    keys[3, 5] = bad
    with pytest.raises(DatastoreError, match="rows 0 to 10 hold NaN or infinity"):
        writer.write(0, keys, values)
    writer.close()


def test_keys_too_large_for_half_precision(tmp_path):
    sink = BackgroundSink(DatastoreWriter(str(tmp_path / "store"), manifest(), 0, ROWS), 0)
    sink.add(torch.full((4, DIMENSION), 70_000.0), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(DatastoreError, match=r"too large for float16 \(`key_dtype`\): store float32"):
        sink.finish()
    assert not Manifest.read(str(tmp_path / "store")).complete


def test_full_disk_before(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DatastoreError, match="the disk has 0.0 GB left"):
        DatastoreWriter(str(tmp_path / "store"), manifest(), 0, ROWS)


def test_full_disk_while_writing(tmp_path, monkeypatch):
    """What was written stays, nothing looks complete, and the next run continues."""
    prefix = str(tmp_path / "store")
    sink = BackgroundSink(DatastoreWriter(prefix, manifest(), 0, ROWS, note_every=0), 0)
    pwrite, calls = os.pwrite, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > 6:
            raise OSError(28, "No space left on device")
        return pwrite(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DatastoreError, match=r"No space left on device after 210 rows"):  # noqa: PT012
        for row in range(0, ROWS, 70):
            sink.add(*map(torch.from_numpy, rows(row, min(row + 70, ROWS))))
            time.sleep(0.01)
        sink.finish()
    sink._sink.close()
    monkeypatch.undo()
    assert not Manifest.read(prefix).complete
    assert not os.path.exists(f"{prefix}_vals.npy")
    writer = DatastoreWriter(prefix, manifest(), 0, ROWS)
    assert writer.resume_row == 210
    writer.close()


def test_what_cannot_be_opened(tmp_path, whole):
    prefix = str(tmp_path / "whole")
    cases = [
        (dict(rows=5), "says 1,000, not 5"),
        (dict(dimension=5), "says 8, not 5"),
    ]
    for options, message in cases:
        with pytest.raises(DatastoreError, match=message):
            open_datastore(prefix, **options)
    with pytest.raises(DatastoreError, match="nowhere_vals.npy does not exist: check the prefix"):
        open_datastore(str(tmp_path / "nowhere"))
    with open(f"{prefix}_vals.npy", "r+b") as file:
        file.truncate(ROWS * 8 - 8)
    with pytest.raises(DatastoreError, match="was cut off"):
        open_datastore(prefix)
    (tmp_path / "whole.json").write_text('{"rows": 3}')
    with pytest.raises(DatastoreError, match="is no manifest"):
        open_datastore(prefix)
    (tmp_path / "whole.json").write_text(json.dumps({**json.loads(whole[".json"]), "format_version": 99}))
    with pytest.raises(DatastoreError, match="update trime_fairseq"):
        open_datastore(prefix)
    assert manifest_path(prefix) == f"{prefix}.json"


def test_keys_of_another_type(tmp_path, whole):
    prefix = str(tmp_path / "whole")
    os.unlink(prefix + ".json")
    with pytest.raises(DatastoreError, match="pass `fp16`"):
        open_datastore(prefix, need_keys=True)
    os.unlink(prefix + "-fp16_keys.npy")
    with pytest.raises(DatastoreError, match=r"do without the keys \(`need_keys`\)"):
        open_datastore(prefix, need_keys=True, fp16=True)
