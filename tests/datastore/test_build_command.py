"""trime-build-index: its flags and messages."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from trime_fairseq import __version__
from trime_fairseq.cli.build_index import main
from trime_fairseq.datastore import IndexManifest

from .small_stores import ROOT, small_manifest, stored

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


def test_streaming_passes_other_flags_to_the_evaluation(tmp_path, monkeypatch, capsys):
    words = []
    monkeypatch.setattr("fairseq_cli.eval_lm.cli_main", lambda: words.extend(sys.argv))
    evaluation = ["data-bin", "--path", "model.pt", "--batch-size", "7"]
    main([*evaluation, *arguments(tmp_path, "--streaming", "--dstore_fp16", "--dstore_size", "9")])
    assert words[: 1 + len(evaluation)] == ["fairseq-eval-lm", *evaluation]
    prefix = ["--dstore-mmap", str(tmp_path / "dstore"), "--gen-subset", "train"]
    added = ["--save-knnlm-dstore", *prefix, "--dstore-size", "9", "--dstore-fp16"]
    assert words[1 + len(evaluation) :][: len(added)] == added
    assert not {"--faiss-index", "--ncentroids", "--code-size", "--streaming"} & set(words)
    words.clear()
    main(["data-bin", "--gen-subset=valid", *arguments(tmp_path, "--streaming")])
    assert "--gen-subset=valid" in words
    assert "train" not in words
    # Not an abbreviation of --dimension.
    assert main(["data-bin", "--dim", "7", *arguments(tmp_path, "--streaming")]) == 1
    assert "unrecognized arguments: --dim 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--ncentroids", "0"], "--ncentroids must be positive, not 0"),
        (["--ncentroids", "2000"], "lower --ncentroids (or another --factory)"),
        (["--num_training_keys", "7"], "--num_training_keys 7 is less than the 8 lists"),
        (["--factory", "Nonsense"], "--factory Nonsense: Faiss cannot make it"),
        (["--num-keys-to-add-at-a-time", "0"], "--num_keys_to_add_at_a_time must be positive, not 0"),
        (["--probe", "0"], "--probe must be positive, not 0"),
        (["--starting-point", "1500"], "--starting_point 1,500 is not a row"),
        (["--dstore-size", "7"], "says 1,500, not 7 (--dstore_size)"),
        (["--dstore-mmap", "{0}/none"], "none_vals.npy does not exist: check the prefix"),
        (["--dstore-mmap", "{0}/streamed"], "its keys were never stored: do without (--streaming)"),
        (["--faiss-index", "{0}/dstore.json/knn"], "--faiss_index {0}/dstore.json/knn"),
    ],
)
def test_errors_name_the_flags_of_the_command(tmp_path, capsys, more, message):
    prefix = stored(tmp_path)
    small_manifest(complete=True, keys_stored=False).write(str(tmp_path / "streamed"))
    shutil.copy(f"{prefix}_vals.npy", tmp_path / "streamed_vals.npy")
    assert main(arguments(tmp_path, *(word.format(tmp_path) for word in more))) == 1
    error = capsys.readouterr().err
    assert message.format(tmp_path) in error
    assert error.startswith("trime-build-index: error: ")
    assert error.count("\n") == 1
    assert "`" not in error


def test_truncated_index_is_built_again(tmp_path):
    stored(tmp_path)
    assert main(arguments(tmp_path, "--dist", "ip")) == 0
    whole = (tmp_path / "knn.ip").read_bytes()
    os.truncate(tmp_path / "knn.ip", 0)
    assert main(arguments(tmp_path, "--dist", "ip")) == 0
    assert (tmp_path / "knn.ip").read_bytes() == whole


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"trime-build-index {__version__}\n"
