"""trime-tune against published results and separate evaluations."""

import json
import shlex
import subprocess
import sys

import pytest
import torch

from tests.commands import REFERENCE, TASK, environment, run
from tests.trusted import load_trusted

ROWS = json.loads((REFERENCE / "evaluation.json").read_text())
STORE = (
    f"--dstore-filename {REFERENCE}/datastore/dstore --indexfile {REFERENCE}/datastore/knn.index.ip "
    "--dstore-size 20000 --dstore-fp16 --faiss-metric-type ip --no-load-keys"
)
WINDOW = "--tokens-per-sample 128 --context-window 96 --batch-size 32"
ALL = f"{WINDOW} {STORE} --use-local --use-external --probe 32"
MODEL = REFERENCE / "checkpoints" / "word-trime_ext" / "checkpoint_best.pt"


def published(*flags):
    """Loss of the one published evaluation of the checkpoint with these flags."""
    rows = [row for row in ROWS if row["checkpoint"] == "word-trime_ext"]
    (row,) = [row for row in rows if all(flag in row["flags"] for flag in flags)]
    return row["loss_base2"]


def tuned(flags, output, data=REFERENCE / "data" / "word"):
    """Output and JSON file of a run on a reference checkpoint."""
    words = [data, *TASK, "--cpu", "--path", MODEL, *flags.split()]
    log = run(sys.executable, "-m", "trime_fairseq.cli.tune", *words, "--output", output)
    return log, json.loads((output / "tuning.json").read_text())


def loss_at(result, **point):
    (found,) = [p["loss"] for p in result["settings"] if all(p.get(name) == point[name] for name in point)]
    return found


@pytest.mark.slow
@pytest.mark.process
def test_settings_have_the_losses_of_separate_evaluations(tmp_path):
    grid = (
        "--grid-softmax-temp 1.1 1.25 --grid-mem-size 0,512,2048 --grid-k 128,64 --grid-interp-temp 5,10.5 "
    )
    log, result = tuned(f"{ALL} {grid} --lmbda 0.3", tmp_path / "out")
    losses = [setting["loss"] for setting in result["settings"]]
    assert len(losses) == 2 * 3 * 2 * 2
    assert losses == sorted(losses)
    assert result["best"] == result["settings"][0]
    assert (result["subset"], result["tokens"]) == ("valid", 20783)
    assert set(result["stage_seconds"]) == {"model", "search", "combination"}
    assert (tmp_path / "out" / "tuning.png").stat().st_size > 10_000
    largest = {"softmax_temp": 1.25, "mem_size": 2048, "k": 128, "interp_temp": 10.5}
    expected = published("--use-long --mem-size 2048", "--lmbda 0.3")
    assert loss_at(result, **largest) == pytest.approx(expected, rel=1e-5)
    # The first line of the table is the best, and the command at the end evaluates it.
    first = next(line for line in log.splitlines() if line.startswith("|  "))
    assert first.split("|")[1].strip() == f"{losses[0]:.4f}"
    assert f"\n{result['test_command']}\n" in log
    assert "--gen-subset test" in result["test_command"]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    "flags",
    [
        "--use-local --use-long --mem-size 512",
        "--use-local --use-long --mem-size 512 --mode li",
        f"--use-local --use-external {STORE} --probe 16 --grid-k 32 --use-interp",
        f"--knnlm --use-local --use-long --mem-size 64 --mode li {STORE} --probe 16 --grid-k 16",
    ],
)
def test_the_command_at_the_end_gives_the_best_loss(flags, tmp_path, small):
    """With the default axes; the command evaluates the validation text here.

    One number of neighbours: quantised keys have equal scores, and the index breaks such ties as ``k`` wants.
    """
    _, result = tuned(f"{WINDOW} {flags} --gen-subset valid", tmp_path, small)
    words = shlex.split(result["test_command"])
    at = words.index("--gen-subset")
    words[at + 1] = "valid"
    assert words[0] == "fairseq-eval-lm"
    again = run(*words, "--eval-file", tmp_path / "again.json")
    assert again
    found = json.loads((tmp_path / "again.json").read_text())
    assert found["loss"] == pytest.approx(result["best"]["loss"], rel=1e-5)
    assert found["loss_without_memory"] == pytest.approx(result["without_memory"]["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.process
def test_the_plain_knnlm(tmp_path):
    grid = "--grid-softmax-temp 5,10 --grid-k 16,64"
    log, result = tuned(f"{WINDOW} {STORE} --knnlm --probe 16 {grid} --lmbda 0.25 --show 3", tmp_path)
    expected = published("--knnlm", "--no-load-keys", "knn.index.ip")
    assert loss_at(result, softmax_temp=10.0, k=64) == pytest.approx(expected, rel=1e-5)
    plain = published("--mode lm")
    assert result["without_memory"]["loss"] == pytest.approx(plain, rel=1e-5)
    assert f"20,783 tokens: perplexity {2**plain:.2f} without memory" in log
    assert "the best of 4 settings" in log


@pytest.mark.process
def test_the_console_is_for_the_settings(tmp_path, small):
    """One command from a Python of its own, which says nothing about Hydra and packages that are missing."""
    model = REFERENCE / "checkpoints" / "word-trime" / "checkpoint_best.pt"
    words = [small, *TASK, "--cpu", "--path", model, *WINDOW.split(), "--use-local"]
    command = [sys.executable, "-m", "trime_fairseq.cli.tune", *words, "--grid-softmax-temp", "1,1.2"]
    done = subprocess.run(
        list(map(str, command)), env=environment(cpu=True), capture_output=True, text=True, check=True
    )
    log = done.stdout + done.stderr
    assert "the best of 2 settings" in log
    for noise in ("version_base", "is validated against ConfigStore", "Please install", "Warning"):
        assert noise not in log


@pytest.mark.process
def test_a_model_that_computes_no_numbers(tmp_path, small):
    """One line of error, and no files."""
    broken = load_trusted(MODEL)
    for value in broken["model"].values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    torch.save(broken, tmp_path / "nan.pt")
    words = [small, *TASK, "--cpu", "--path", tmp_path / "nan.pt", *WINDOW.split(), "--use-local"]
    command = [sys.executable, "-m", "trime_fairseq.cli.tune", *words, "--output", tmp_path / "out"]
    last = run(*command, fails=True).splitlines()[-1]
    assert last.startswith("trime-tune: error: ")
    assert "--path" in last
    assert "NaN" in last
    assert not list((tmp_path / "out").iterdir())
