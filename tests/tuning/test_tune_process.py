"""trime-tune against published results and separate evaluations."""

import json
import subprocess
import sys

import pytest

from tests.commands import REFERENCE, TASK, environment, evaluate, run

ROWS = json.loads((REFERENCE / "evaluation.json").read_text())
STORE = (
    f"--dstore-filename {REFERENCE}/datastore/dstore --indexfile {REFERENCE}/datastore/knn.index.ip "
    "--dstore-size 20000 --dstore-fp16 --faiss-metric-type ip --no-load-keys"
)
WINDOW = "--tokens-per-sample 128 --context-window 96 --batch-size 32"
ALL = f"{WINDOW} {STORE} --use-local --use-external --probe 32"


def published(*flags):
    """Loss of the one published evaluation of the checkpoint with these flags."""
    rows = [row for row in ROWS if row["checkpoint"] == "word-trime_ext"]
    (row,) = [row for row in rows if all(flag in row["flags"] for flag in flags)]
    return row["loss_base2"]


def tuned(flags, output):
    """Output and JSON file of a run on a reference checkpoint."""
    model = REFERENCE / "checkpoints" / "word-trime_ext" / "checkpoint_best.pt"
    words = [REFERENCE / "data" / "word", *TASK, "--cpu", "--path", model, *flags.split()]
    log = run(sys.executable, "-m", "trime_fairseq.cli.tune", *words, "--output", output)
    return log, json.loads((output / "tuning.json").read_text())


def loss_at(result, **point):
    (found,) = [p["loss"] for p in result["points"] if all(p[name] == point[name] for name in point)]
    return found


@pytest.mark.slow
@pytest.mark.process
def test_a_grid_has_the_losses_of_separate_evaluations(tmp_path):
    grid = (
        "--grid-softmax-temp 1.1 1.25 --grid-mem-size 0,512,2048 --grid-k 128,64 --grid-interp-temp 5,10.5 "
    )
    grid += "--grid-lmbda 0,0.3"
    log, result = tuned(f"{ALL} {grid}", tmp_path / "out")
    losses = [point["loss"] for point in result["points"]]
    assert len(losses) == 2 * 3 * 2 * 2 * 2
    assert losses == sorted(losses)
    assert result["best"] == result["points"][0]
    assert (result["subset"], result["tokens"]) == ("valid", 20783)
    assert set(result["stage_seconds"]) == {"model", "search", "combination"}
    assert (tmp_path / "out" / "tuning.png").stat().st_size > 10_000

    largest = {"softmax_temp": 1.25, "mem_size": 2048, "k": 128, "interp_temp": 10.5}
    rows = {0: "--k 128 --no-load-keys --dstore", 0.3: "--lmbda 0.3"}
    for lmbda, flags in rows.items():
        expected = published("--use-long --mem-size 2048", flags)
        assert loss_at(result, **largest, lmbda=lmbda) == pytest.approx(expected, rel=1e-5)
    flags = "--use-long --mem-size 512 --softmax-temp 1.1 --k 64 --use-interp --interp-temp 5 --lmbda 0.3"
    alone = evaluate(tmp_path, "word-trime_ext", f"{ALL} {flags}")
    point = dict(softmax_temp=1.1, mem_size=512, k=64, interp_temp=5.0, lmbda=0.3)
    assert loss_at(result, **point) == pytest.approx(alone["loss"], rel=1e-5)

    assert f"{losses[0]:.4f} | " in log
    assert f"\n{result['test_command']}\n" in log
    assert "--gen-subset test" in result["test_command"]
    assert "--mem-size 2048 is the largest of its grid: widen --grid-mem-size" in log


@pytest.mark.slow
@pytest.mark.process
def test_a_grid_of_the_plain_knnlm(tmp_path):
    grid = "--grid-softmax-temp 5,10 --grid-lmbda 0,0.25 --grid-k 16,64"
    log, result = tuned(f"{WINDOW} {STORE} --knnlm --probe 16 {grid} --gen-subset valid --show 3", tmp_path)
    expected = published("--knnlm", "--no-load-keys", "knn.index.ip")
    assert loss_at(result, softmax_temp=10.0, k=64, lmbda=0.25) == pytest.approx(expected, rel=1e-5)
    plain = published("--mode lm")
    assert loss_at(result, softmax_temp=5.0, k=16, lmbda=0.0) == pytest.approx(plain, rel=1e-5)
    assert "3 best of 8 settings on valid, 20,783 tokens" in log


@pytest.mark.process
def test_the_console_is_for_the_grid(tmp_path, small):
    """One command from a Python of its own, which says nothing about Hydra and packages that are missing."""
    model = REFERENCE / "checkpoints" / "word-trime" / "checkpoint_best.pt"
    words = [small, *TASK, "--cpu", "--path", model, *WINDOW.split(), "--use-local"]
    command = [sys.executable, "-m", "trime_fairseq.cli.tune", *words, "--grid-softmax-temp", "1,1.2"]
    done = subprocess.run(
        list(map(str, command)), env=environment(cpu=True), capture_output=True, text=True, check=True
    )
    log = done.stdout + done.stderr
    assert "2 best of 2 settings" in log
    for noise in ("version_base", "is validated against ConfigStore", "Please install", "Warning"):
        assert noise not in log
