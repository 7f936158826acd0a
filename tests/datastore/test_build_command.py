"""trime-build-index: its flags and messages."""

import subprocess
import sys
import types

import numpy as np
import pytest

from trime_fairseq.cli.build_index import main
from trime_fairseq.datastore.index.manifest import IndexManifest

from .small_stores import (
    ROOT,
    stored,
)

faiss = pytest.importorskip("faiss")


REFERENCE = ROOT / "tests" / "reference" / "datastore"


def test_command_on_a_published_store(tmp_path):
    words = (
        "--dimension 96 --dstore-fp16 --dstore_size 20000 --dist ip --ncentroids 16 --code-size 8 --probe 4"
    )
    words += " --num_training_keys 1000 --num_keys_to_add_at_a_time 7000"
    files = ["--dstore_mmap", REFERENCE / "dstore", "--faiss_index", tmp_path / "knn"]
    command = [sys.executable, ROOT / "scripts" / "build_dstore.py", *files, *words.split()]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=tmp_path, timeout=300)
    index = faiss.read_index(str(tmp_path / "knn.ip"))
    assert (index.ntotal, index.metric_type, index.nlist, index.nprobe) == (20000, 0, 16, 4)
    keys = (
        np.fromfile(REFERENCE / "dstore-fp16_keys.npy", np.float16).reshape(-1, 96)[:200].astype(np.float32)
    )
    stored_keys = (
        np.fromfile(REFERENCE / "dstore-fp16_keys.npy", np.float16).reshape(-1, 96).astype(np.float32)
    )
    index.nprobe = 16
    found, nearest = index.search(keys, 100)[1], (keys @ stored_keys.T).argmax(axis=1)
    assert np.mean([row in near for row, near in zip(nearest, found)]) > 0.5


def arguments(folder, *more):
    files = ["--dstore-mmap", str(folder / "dstore"), "--faiss-index", str(folder / "knn")]
    return [*files, "--ncentroids", "8", "--code-size", "4", *more]


def test_command_takes_the_advice_of_the_manifest(tmp_path):
    stored(tmp_path, metric="cos")
    assert main(arguments(tmp_path)) == 0
    assert (tmp_path / "knn.cos").exists()
    assert main(arguments(tmp_path, "--dist", "l2", "--do_train_only")) == 0
    assert (tmp_path / "knn.l2.trained").exists()


def test_command_without_a_manifest(tmp_path, capsys):
    stored(tmp_path)
    (tmp_path / "dstore.json").unlink()
    assert main(arguments(tmp_path, "--dstore_fp16", "--dimension", "16", "--factory", "IVF4,Flat")) == 0
    assert IndexManifest.read(str(tmp_path / "knn.l2")).factory == "IVF4,Flat"
    assert main(arguments(tmp_path, "--dimension", "16")) == 1
    assert "pass --dstore_fp16" in capsys.readouterr().err


def test_command_errors_are_one_line(tmp_path, capsys):
    stored(tmp_path)
    assert main(arguments(tmp_path, "--code_size", "5")) == 1
    error = capsys.readouterr().err
    assert error.startswith("trime-build-index: error: --code_size 5")
    assert error.count("\n") == 1
    with pytest.raises(SystemExit):
        main(arguments(tmp_path, "--max-tokens", "512"))
    assert "unrecognized arguments: --max-tokens 512" in capsys.readouterr().err


def test_command_passes_flags_on(tmp_path, monkeypatch):
    calls = []
    module = types.ModuleType("streaming")
    module.stream = lambda args, rest: calls.append((args.faiss_index, rest)) or 3
    monkeypatch.setitem(sys.modules, "trime_fairseq.cli.streaming", module)
    # "--dim" would be an abbreviation of --dimension.
    given = ["data-bin", "--path", "model.pt", "--dim", "7"]
    assert main([*given, *arguments(tmp_path, "--streaming")]) == 3
    assert calls == [(str(tmp_path / "knn"), given)]
