"""Stages of an index: whatever is killed or cut off, it ends with the same bytes."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pytest

from trime_fairseq.datastore import DatastoreError, IndexManifest, open_datastore, open_index
from trime_fairseq.datastore.index import growing
from trime_fairseq.files import file_checksum

from . import small_stores
from .small_stores import (
    CHUNK,
    CONFIG,
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
        assert IndexManifest.read(str(tmp_path / "knn.l2")).complete
        assert left_over(tmp_path) == []
        continued |= {r.message.rsplit("row ")[-1] for r in caplog.records if "continuing" in r.message}
    assert continued == {f"{row:,}" for row in [*range(CHUNK, ROWS, CHUNK), ROWS]}


def test_kill_9(tmp_path, built):
    stored(tmp_path)
    kills, log = run_killed("build", tmp_path, seed=1)
    assert kills  # how many more than one depends on the machine
    assert finished_files(tmp_path) == built
    assert left_over(tmp_path) == []


def test_kill_9_after_progress_was_saved(tmp_path, built):
    """Late in a run, and again when it goes on: both runs have a partial index to go on from."""
    stored(tmp_path)
    rows = []
    for event in (12, 8):
        assert killed(tmp_path, event) == -signal.SIGKILL
        rows.append(faiss.read_index(str(tmp_path / "knn.l2.partial")).ntotal)
        assert (tmp_path / "knn.l2.partial").exists()
        assert not (tmp_path / "knn.l2").exists()
    assert 0 < rows[0] < rows[1] < ROWS
    kills, log = run_killed("build", tmp_path, seed=3)
    assert finished_files(tmp_path) == built
    assert IndexManifest.read(str(tmp_path / "knn.l2")).checksum == file_checksum(str(tmp_path / "knn.l2"))
    assert left_over(tmp_path) == []


def killed(folder, event):
    """The exit status of a build that kills itself."""
    command = [sys.executable, small_stores.__file__, "build", str(folder), f"event:{event}"]
    return subprocess.run(command, capture_output=True, timeout=300).returncode


def test_starting_point_continues(tmp_path, monkeypatch):
    stored(tmp_path)
    whole = Path(build(tmp_path, starting_point=450)).read_bytes()
    _remove_index(tmp_path)
    assert killed_at(monkeypatch, lambda: build(tmp_path, starting_point=450), 12)
    assert (tmp_path / "knn.l2.partial").exists()
    assert Path(build(tmp_path, starting_point=450)).read_bytes() == whole


def test_stages(tmp_path):
    store = open_datastore(stored(tmp_path))
    keys = small_rows(dtype="float16")[0].astype(np.float32)
    settings = {"datastore": store.fingerprint(), "datastore_rows": ROWS, "training": "sample"}
    manifest = IndexManifest.describe(CONFIG, store.manifest, chunk=CHUNK, **settings)

    @contextmanager
    def opened():
        index = growing.GrowingIndex(
            str(tmp_path / "knn.l2"), manifest, CONFIG.new_index, probe=8, save_every=0
        )
        with closing(index):
            yield index

    with opened() as index:
        assert index.stage == "none"
        index.open()
        index.train(keys[:700])
        assert index.stage == "trained"
    for begin in range(0, ROWS, CHUNK):
        with opened() as index:
            assert index.stage == ("partial" if begin else "trained")
            index.open()
            assert index.next_row == begin
            index.add(keys[begin : begin + CHUNK])
            if begin + CHUNK >= ROWS:
                index.finish()
                assert index.stage == "complete"
    with opened() as index:
        assert index.stage == "complete"
        assert index.is_trained()
        index.start_over()
        assert index.stage == "trained"
    with opened() as index:
        assert index.stage == "trained"
    # It stays, as an index of other tools would.
    assert open_index(str(tmp_path / "knn.l2")).rows == ROWS


@pytest.mark.parametrize("change", [{"factory": "IVF4,Flat"}, {"seed": 2}])
def test_manifest_is_always_that_of_the_index(tmp_path, monkeypatch, change):
    """Whether the other index has another size, or only other bytes."""
    configs = [replace(CONFIG, factory="IVF8,Flat"), replace(CONFIG, **{"factory": "IVF8,Flat", **change})]
    stored(tmp_path)
    contents = {}
    for config in configs:
        path = build(tmp_path, config, chunk=ROWS)
        contents[config.factory, config.seed] = Path(path).read_bytes()
    assert len(set(contents.values())) == 2
    build(tmp_path, configs[0])
    count = operations(monkeypatch, lambda: build(tmp_path, configs[1], chunk=ROWS))
    found = []
    for event in range(1, count + 1):
        build(tmp_path, configs[0])
        assert killed_at(monkeypatch, lambda: build(tmp_path, configs[1], chunk=ROWS), event)
        if not Path(path).exists():
            with pytest.raises(DatastoreError, match="is not complete: run trime-build-index again"):
                open_index(path)
            found.append("none")
            continue
        manifest = open_index(path).manifest
        found.append((manifest.factory, manifest.seed))
        assert contents[found[-1]] == Path(path).read_bytes()
    assert list(dict.fromkeys(found)) == [*list(contents)[:1], "none", *list(contents)[1:]]


def test_finished_index_is_not_lost_while_its_probe_changes(tmp_path, monkeypatch, built):
    stored(tmp_path)
    build(tmp_path)
    monkeypatch.setattr(growing.GrowingIndex, "add", None)
    # Not the chunks of the run that built it.
    count = operations(monkeypatch, lambda: build(tmp_path, probe=5, chunk=CHUNK + 1))
    for event in range(1, count + 1):
        run = partial(build, tmp_path, probe=5 + event, chunk=CHUNK + 1)
        assert killed_at(monkeypatch, run, event)
        run()
        assert open_index(str(tmp_path / "knn.l2")).faiss.nprobe == 5 + event
        assert left_over(tmp_path) == []
        build(tmp_path, probe=5)
    build(tmp_path, probe=8)
    assert finished_files(tmp_path) == built


def test_index_that_was_cut_off_is_built_again(tmp_path, built, caplog):
    stored(tmp_path)
    path = Path(build(tmp_path))
    for size in (0, len(built["knn.l2"]) - 1):
        os.truncate(path, size)
        with pytest.raises(DatastoreError, match="is not complete"):
            open_index(str(path))
        with caplog.at_level(logging.INFO):
            build(tmp_path)
        assert "was it cut off" in caplog.text
        assert finished_files(tmp_path) == built


def test_trained_index_that_was_cut_off(tmp_path, built):
    stored(tmp_path)
    os.truncate(build(tmp_path, train_only=True), 100)
    build(tmp_path)
    assert finished_files(tmp_path) == built


def test_manifests_of_version_0_1_0(tmp_path, monkeypatch, built, caplog):
    """They tell neither size nor checksum: the index is complete if it holds all keys."""
    stored(tmp_path)
    path = Path(build(tmp_path))
    for file in (path, Path(f"{path}.trained")):
        manifest = json.loads(Path(f"{file}.json").read_text())
        for field in ("bytes", "checksum", "values_checksum"):
            del manifest[field]
        Path(f"{file}.json").write_text(json.dumps(manifest))
    assert open_index(str(path)).rows == ROWS
    with caplog.at_level(logging.INFO):
        build(tmp_path)
    assert "is there already, complete" in caplog.text
    # An index with less keys than its manifest says, and one that ends before its end.
    shutil.copy(f"{path}.trained", path)
    monkeypatch.setattr(growing, "train", None)
    with pytest.raises(DatastoreError, match=r"is not complete \(0 of 1,500 keys\)"):
        open_index(str(path))
    for size in (os.path.getsize(path), 50):
        os.truncate(path, size)
        build(tmp_path)
        assert finished_files(tmp_path) == built
        shutil.copy(f"{path}.trained", path)


def _remove_index(folder):
    for path in folder.glob("knn*"):
        path.unlink()


def test_half_built_index_of_another_seed_is_never_continued(tmp_path, monkeypatch):
    run, other = (partial(build, tmp_path, replace(CONFIG, seed=seed), chunk=700) for seed in (1, 2))
    stored(tmp_path)
    count = operations(monkeypatch, run)
    whole = finished_files(tmp_path)
    # The last run dies once its first partial index is there.
    events = next(e for e in range(1, 99) if _half_built(tmp_path, monkeypatch, other, e))
    for event in range(1, count + 1):
        assert _half_built(tmp_path, monkeypatch, other, events)
        killed_at(monkeypatch, run, event)
        run()
        assert finished_files(tmp_path) == whole, event


def _half_built(folder, monkeypatch, run, event):
    _remove_index(folder)
    killed_at(monkeypatch, run, event)
    return (folder / "knn.l2.partial").exists()
