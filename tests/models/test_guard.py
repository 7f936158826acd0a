"""Every command of fairseq reads checkpoints as data, whatever task and format they name."""

import argparse
import importlib
import json
import os
import sys

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary

from tests.commands import REFERENCE, TASK, TINY, run
from tests.models.checkpoints_made_up import PUBLISHED, new, old
from tests.trusted import load_trusted
from trime_fairseq.evaluation import evaluate
from trime_fairseq.evaluation.in_process import register
from trime_fairseq.models.guard import compare_with
from trime_fairseq.tasks.state import saved_state

WORD = str(REFERENCE / "data" / "word")
ONE = ["--cpu", "--distributed-world-size", "1"]
TEXT = ["--tokens-per-sample", "128", "--max-tokens", "1024", "--required-batch-size-multiple", "1"]
TRAINING = [*TINY, *TEXT, "--optimizer", "sgd", "--lr", "0.5", "--max-update", "1", "--disable-validation"]
COMMANDS = {
    "eval_lm": ("--path", [*TEXT, "--gen-subset", "valid"]),
    "validate": ("--path", [*TEXT]),
    "generate": ("--path", [*TEXT, "--gen-subset", "valid", "--beam", "1"]),
    "interactive": ("--path", ["--beam", "1"]),
    "train --restore-file": ("--restore-file", [*TRAINING, "--criterion", "trime_loss"]),
    "train --finetune-from-model": ("--finetune-from-model", [*TRAINING, "--criterion", "trime_loss"]),
}
PWNED = "[(1,4)][__import__('os').system('touch {}/PWNED'):]"


@pytest.fixture(scope="module", autouse=True)
def registered():
    register()


def command(monkeypatch, folder, name, path, *more, task="trime_language_modeling", data=WORD):
    """Runs a command of fairseq in this process."""
    flag, flags = COMMANDS[name]
    program = name.split()[0]
    words = [
        f"fairseq-{program.replace('_', '-')}",
        str(data),
        *TASK[:2],
        "--task",
        task,
        *ONE,
        flag,
        str(path),
    ]
    words += ["--save-dir", str(folder / "out")] if program == "train" else []
    monkeypatch.setattr(sys, "argv", [*words, *flags, *more])
    importlib.import_module(f"fairseq_cli.{program}").cli_main()


def hostile(folder):
    code = PWNED.format(folder)
    fconv = dict(arch="fconv_lm", decoder_layers="[(32, 3)]", decoder_attention=code)
    translation = dict(arch="fconv", task="translation", encoder_layers=code, decoder_layers="[(8, 3)]")
    yield "character_filters", old(character_embeddings=True, character_filters=code)
    yield "decoder_attention", old(**fconv)
    yield "encoder_layers", old(**translation)
    yield "wer_args", old(criterion="ctc", wer_args=code)
    yield "character_filters", old(character_filters="${oc.env:HOME}")
    yield "character_filters", old(character_embeddings=True, character_filters=code.encode())
    for task in ("language_modeling", "trime_language_modeling"):
        model = dict(character_embeddings=True, character_filters=code)
        yield "character_filters", new(task, model=model)
        yield "wer_args", new(task, criterion={"_name": "ctc", "wer_args": code})
        yield "adam_betas", new(task, optimizer={"adam_betas": code})
        yield "dropout", new(task, model={"dropout": "${oc.decode:${oc.env:HOME}}"})
    state = new()
    state["cfg"]["model"] = argparse.Namespace(_name="fconv_lm", **fconv)
    yield "decoder_attention", state


def test_nothing_of_a_checkpoint_is_run(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    monkeypatch.setattr(sys, "argv", ["fairseq-eval-lm", "--path", str(path)])
    for setting, state in hostile(tmp_path):
        torch.save(state, path)
        with pytest.raises(ValueError, match=f"^--path {path} sets {setting} to ") as error:
            load(path)
        assert len(str(error.value).splitlines()) == 1
        assert not (tmp_path / "PWNED").exists(), setting


@pytest.mark.parametrize(
    ("name", "task"),
    [*((name, "trime_language_modeling") for name in COMMANDS), ("validate", "language_modeling")],
)
def test_by_no_command(tmp_path, monkeypatch, name, task):
    """The checkpoint's own task is the stock one; so fairseq-validate may build no other."""
    flag, path = COMMANDS[name][0], tmp_path / "c.pt"
    model = dict(character_embeddings=True, character_filters=PWNED.format(tmp_path))
    torch.save(new(model=model) if task == "trime_language_modeling" else old(**model), path)
    with pytest.raises(ValueError, match=f"^{flag} {path} sets character_filters to "):
        command(monkeypatch, tmp_path, name, path, task=task)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("name", ["eval_lm", "generate", "train --finetune-from-model"])
def test_damaged_files_are_named(tmp_path, monkeypatch, name):
    path, flag = tmp_path / "c.pt", COMMANDS[name][0]
    path.write_bytes(PUBLISHED.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=f"^{flag} {path} is damaged, cut off"):
        command(monkeypatch, tmp_path, name, path)


@pytest.mark.parametrize("name", ["eval_lm", "generate"])
def test_missing_files_are_named(tmp_path, monkeypatch, name):
    path = tmp_path / "none.pt"
    with pytest.raises(FileNotFoundError, match=f"^--path {path} does not exist: check the path"):
        command(monkeypatch, tmp_path, name, path)


def test_checkpoint_of_a_run_that_is_resumed(tmp_path, monkeypatch):
    path = tmp_path / "out" / "checkpoint_last.pt"
    path.parent.mkdir()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"^--restore-file {path} is empty"):
        command(monkeypatch, tmp_path, "train --restore-file", "checkpoint_last.pt")


def test_language_model_for_reranking(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    torch.save(old(character_filters=PWNED.format(tmp_path)), path)
    with pytest.raises(ValueError, match=f"^--lm-path {path} sets character_filters"):
        command(monkeypatch, tmp_path, "generate", PUBLISHED, "--lm-path", str(path))


def load(path, **given):
    checkpoint_utils.load_model_ensemble_and_task([str(path)], {"data": WORD, **given})


def without_weight(state):
    del state["model"]["decoder.layers.1.fc1.weight"]
    return state


UNFIT = {
    "unknown architecture": (lambda: old(arch="nope"), "has settings that fairseq cannot read .*nope"),
    "text for a number": (lambda: old(decoder_embed_dim="wide"), "has settings that fairseq cannot read"),
    "heads": (lambda: old(decoder_attention_heads=7), "the model of its settings cannot be built"),
    "width": (
        lambda: old(decoder_ffn_embed_dim=100),
        "its weights are not those of .*size mismatch",
    ),
    "missing weights": (
        lambda: without_weight(new()),
        "its weights are not those of .*Missing key",
    ),
    "no history": (lambda: {**old(), "optimizer_history": []}, "has settings that fairseq cannot read"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_settings_and_weights_that_do_not_fit(tmp_path, monkeypatch, name):
    state, message = UNFIT[name]
    torch.save(state(), tmp_path / "c.pt")
    monkeypatch.setattr(sys, "argv", ["fairseq-eval-lm"])
    with pytest.raises(ValueError, match=f"^--path {tmp_path}/c.pt:? {message}") as error:
        load(tmp_path / "c.pt")
    assert len(str(error.value).splitlines()) == 1


def test_the_users_own_overrides_are_theirs(tmp_path):
    """--model-overrides; and no folder of a checkpoint is imported."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "__init__.py").write_text("raise SystemExit(3)")
    torch.save(old(user_dir=str(tmp_path / "own"), save_dir="wiki (1)"), tmp_path / "c.pt")
    load(tmp_path / "c.pt", save_dir="${checkpoint.restore_file}", adaptive_softmax_cutoff="1000,3000")
    torch.save(old(character_filters="[print()]"), tmp_path / "c.pt")
    load(tmp_path / "c.pt", character_filters="[(1, 64)]")


def test_torchs_own_switch_is_named(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with caplog.at_level("WARNING"):
        load(PUBLISHED)
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD does not count" in caplog.text


def test_registering_twice_wraps_once():
    reader = checkpoint_utils.load_checkpoint_to_cpu
    from trime_fairseq.models.guard import guard_checkpoints

    guard_checkpoints(lambda task: {})
    try:
        assert checkpoint_utils.load_checkpoint_to_cpu.__wrapped__ is reader.__wrapped__
    finally:
        checkpoint_utils.load_checkpoint_to_cpu = reader


def test_weights_that_are_no_numbers(tmp_path):
    state = old()
    state["model"]["decoder.layers.0.fc1.bias"][0] = float("nan")
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=f"^--path {tmp_path}/c.pt holds NaN or infinite weights"):
        evaluate(str(tmp_path / "c.pt"), WORD, gen_subset="valid", cpu=True)


def other_order(folder):
    """The reference text with a dictionary whose last words have changed places."""
    folder.mkdir()
    for part in ("train", "valid", "test"):
        for ending in ("bin", "idx"):
            (folder / f"{part}.{ending}").symlink_to(f"{WORD}/{part}.{ending}")
    lines = (REFERENCE / "data" / "word" / "dict.txt").read_text().splitlines(keepends=True)
    (folder / "dict.txt").write_text("".join([*lines[:-2], lines[-1], lines[-2]]))
    return folder


@pytest.mark.parametrize("name", ["eval_lm", "validate", "train --restore-file"])
def test_dictionary_in_another_order(tmp_path, monkeypatch, name):
    """Which old checkpoints do not know, but those trained from now on."""
    path, flag = tmp_path / "c.pt", COMMANDS[name][0]
    symbols = Dictionary.load(f"{WORD}/dict.txt").symbols
    state = new("trime_language_modeling", task={"data": WORD})
    torch.save({**state, "task_state": saved_state(symbols, None)}, path)
    load(path)
    with pytest.raises(ValueError, match=f"^{flag} {path}: the checkpoint was trained with another"):
        command(monkeypatch, tmp_path, name, path, data=other_order(tmp_path / "data"))


class Forgetful:
    def check_state(self, state):
        raise ValueError("never asked")


def test_other_tasks_are_not_asked():
    """Only that of a training that goes on, as its trainer reads; nor one that is gone."""
    kept = Forgetful()
    compare_with(kept)
    load(PUBLISHED)
    checkpoint_utils.load_checkpoint_to_cpu(str(PUBLISHED), {})
    with pytest.raises(ValueError, match="never asked"):
        checkpoint_utils.load_checkpoint_to_cpu(str(PUBLISHED), load_on_all_ranks=False)
    del kept
    compare_with(Forgetful())
    checkpoint_utils.load_checkpoint_to_cpu(str(PUBLISHED), load_on_all_ranks=False)


VALIDATION = ["--max-tokens", "1024", "--tokens-per-sample", "128", "--sample-break-mode", "none"]


def test_validation_of_a_published_checkpoint():
    """Whose settings hold None, and values of flags that say nothing about its training."""
    words = ["--valid-subset", "valid", *VALIDATION, "--required-batch-size-multiple", "1", "--cpu"]
    log = run("fairseq-validate", WORD, *TASK, "--path", PUBLISHED, *words)
    assert "loss 7.009 | ori_loss 7.091" in log


PUBLISHED_VALUES = dict(
    probe=8,
    faiss_metric_type="l2",
    dstore_size=103227021,
    lmbda=0.0,
    use_local=True,
    save_knnlm_dstore=True,
    eval_file="result.json",
    output_segments_to_file="segments.json",
    cross_sent_ratio=None,
    train_mem_size=None,
)


@pytest.mark.parametrize("checkpoint", ["word-trime_ext", "new"])
def test_flags_of_single_commands_mean_nothing_in_a_checkpoint(tmp_path, monkeypatch, small, checkpoint):
    """They are not used, and no file of them is written."""
    monkeypatch.chdir(tmp_path)
    if checkpoint == "new":
        known = {name: value for name, value in PUBLISHED_VALUES.items() if value is not None}
        state = new("trime_language_modeling", task=known)
    else:
        state = load_trusted(REFERENCE / "checkpoints" / checkpoint / "checkpoint_best.pt")
        vars(state["args"]).update(PUBLISHED_VALUES)
        assert checkpoint != "word-trime_ext" or state["args"].predefined_batches == "moby-bin/batches.json"
    torch.save(state, tmp_path / "c.pt")
    printed = []
    monkeypatch.setattr(
        "fairseq.logging.progress_bar.SimpleProgressBar.print",
        lambda self, stats, tag=None, step=None: printed.append(stats),
    )
    more = ["--no-progress-bar", "--log-format", "simple", "--valid-subset", "valid"]
    command(monkeypatch, tmp_path, "validate", tmp_path / "c.pt", *more, data=small)
    assert printed[-1]["loss"] == pytest.approx(state["extra_state"]["best"], abs=0.3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.pt"]


def test_flags_that_are_given_count(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--use-local: of fairseq-eval-lm only"):
        command(monkeypatch, tmp_path, "validate", PUBLISHED, "--use-local")


def test_places_that_hold_no_checkpoint(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(ValueError, match="--save-dir .*file.*: no checkpoint can be written there"):
            checkpoint_utils.verify_checkpoint_directory(str(folder))
    checkpoint_utils.verify_checkpoint_directory(str(tmp_path / "new" / "one"))
    assert os.listdir(tmp_path / "new" / "one") == []


def test_no_such_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="^--path no/model.pt does not exist"):
        command(monkeypatch, tmp_path, "eval_lm", "no/model.pt")
    with pytest.raises(ValueError, match=f"^--path {tmp_path} is a folder, no regular file: give the file"):
        command(monkeypatch, tmp_path, "eval_lm", tmp_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--update-freq 0", "--update-freq must be positive"),
        ("--max-target-positions 64", "--tokens-per-sample 128 exceeds --max-target-positions 64"),
    ],
)
def test_flags_of_a_training(tmp_path, monkeypatch, flags, message):
    with pytest.raises(ValueError, match=message):
        command(monkeypatch, tmp_path, "train --finetune-from-model", PUBLISHED, *flags.split())


@pytest.mark.slow
def test_training_goes_on_from_a_published_checkpoint(tmp_path, monkeypatch):
    """Whose criterion's settings hold None."""
    torch.save(
        old(**PUBLISHED_VALUES, criterion="trime_ext_loss", task="trime_language_modeling"), tmp_path / "c.pt"
    )
    wide = dict(zip(("--decoder-embed-dim", "--decoder-input-dim", "--decoder-output-dim"), ["96"] * 3))
    wide.update({"--decoder-ffn-embed-dim": "192", "--decoder-attention-heads": "4"})
    words = [word for pair in wide.items() for word in pair]
    command(monkeypatch, tmp_path, "train --finetune-from-model", tmp_path / "c.pt", *words)
    saved = load_trusted(tmp_path / "out" / "checkpoint_last.pt")
    assert saved["task_state"]["trime_dictionary"]["types"] == 6248
    json.dumps(saved["task_state"])
