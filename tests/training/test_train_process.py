"""The real fairseq-train: from scratch, resumed, accumulated, on several processes, from checkpoints."""

import re
import sys
import time

import pytest
import torch
from fairseq import checkpoint_utils

import trime_fairseq.tasks  # noqa: F401
from tests.commands import (
    REFERENCE,
    ROOT,
    evaluate,
    needs_half_on_cpu,
    run,
    run_ranks,
    start,
    train,
    training_command,
)

pytestmark = pytest.mark.process
NEEDS_CUDA = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def logged(log, which, name):
    """Values of a name in the lines of ``train_inner``, ``train`` or ``valid``; at least one."""
    lines = [line for line in log.splitlines() if re.search(rf"(\| |\[){which}(\]| \|)", line)]
    values = [float(v) for line in lines for v in re.findall(rf"\b{name}[= ]([\d.]+)", line)]
    assert values, f"no {name} in the log of {which}"
    return values


def checkpoint(save_dir):
    return checkpoint_utils.load_checkpoint_to_cpu(str(save_dir / "checkpoint_last.pt"))


def parameters(save_dir):
    """Of the model, and of a criterion that has some."""
    state = checkpoint(save_dir)
    return {**state["model"], **(state["criterion"] or {})}


def summaries(log):
    """What the lines say with which trainings end."""
    return re.findall(r"TRIME: last (.*)", log)


def assert_same_model(one, two, **tolerance):
    one, two = parameters(one), parameters(two)
    assert one.keys() == two.keys()
    for name in one:
        if name.endswith("_float_tensor"):  # never initialised by fairseq: it only carries a dtype
            continue
        torch.testing.assert_close(one[name], two[name], msg=name, **tolerance)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory, small):
    """Four updates of 8 segments each, of one epoch with validation at its end."""
    folder = tmp_path_factory.mktemp("short")
    log = train(folder, "--max-update", 4, "--batch-size", 8, data=small)
    return folder, log


def test_logged_values(short_run):
    _, log = short_run
    for which in ("train_inner", "valid"):
        loss, norm, ori = (logged(log, which, name) for name in ("loss", "norm_loss", "ori_loss"))
        assert loss == norm
        assert loss != ori
    assert logged(log, "valid", "ppl")[0] == pytest.approx(2 ** logged(log, "valid", "loss")[0], rel=2e-3)
    assert 0 < logged(log, "valid", "mem_mass")[0] < 1
    assert 0 < logged(log, "valid", "mem_share")[0] < 1


def test_summary_of_the_last_validation(short_run):
    _, log = short_run
    (line,) = summaries(log)
    plain, memory, mass = (logged(log, "valid", name)[-1] for name in ("ori_loss", "norm_loss", "mem_mass"))
    found = [float(number) for number in re.findall(r"-?\d+\.\d+", line)]
    # Losses have three digits in the log, of which those here are not made.
    expected = [plain, 2**plain, memory, 2**memory, plain - memory, mass]
    assert found == pytest.approx(expected, rel=5e-4, abs=6e-3)


def test_validation_loss_is_that_of_evaluation(short_run, tmp_path, small):
    """What training prints on the validation text is what fairseq-eval-lm computes with local memory."""
    folder, log = short_run
    result = evaluate(tmp_path, flags=f"--use-local --path {folder / 'checkpoint_last.pt'}", data=small)
    assert result["loss"] == pytest.approx(logged(log, "valid", "loss")[0], abs=6e-4)


@pytest.mark.slow
def test_gradient_accumulation_is_the_larger_batch(tmp_path, small):
    """Two batches of 4 segments per update, or one of 8: the same weights after an update."""
    order = ("--max-update", 1, "--disable-validation", "--curriculum", 9)
    train(tmp_path / "one", *order, "--batch-size", 8, data=small)
    train(tmp_path / "two", *order, "--batch-size", 4, "--update-freq", 2, data=small)
    assert_same_model(tmp_path / "one", tmp_path / "two", rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_are_the_larger_batch(tmp_path, small):
    order = ("--max-update", 1, "--curriculum", 9)
    log = train(tmp_path / "one", *order, "--batch-size", 8, data=small)
    command = training_command(tmp_path / "two", *order, "--batch-size", 4, data=small)
    outputs = run_ranks(command, 2)
    assert_same_model(tmp_path / "one", tmp_path / "two", rtol=1e-4, atol=1e-6)
    for name in ("loss", "ori_loss", "mem_mass"):
        assert logged(outputs[0], "valid", name) == pytest.approx(logged(log, "valid", name), abs=2e-3)


@pytest.mark.slow
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, small, short_run):
    folder, _ = short_run
    train(tmp_path, "--max-update", 2, "--batch-size", 8, "--disable-validation", data=small)
    train(tmp_path, "--max-update", 4, "--batch-size", 8, "--disable-validation", data=small)
    assert_same_model(tmp_path, folder, rtol=0, atol=0)


@pytest.mark.slow
def test_summary_after_ctrl_c(tmp_path, small):
    """Of the epoch, as nothing was validated."""
    # It ends by itself where Ctrl-C does not end it.
    flags = ("--save-interval-updates", 1, "--disable-validation", "--batch-size", 8, "--max-update", 500)
    process = start(training_command(tmp_path, *flags, data=small))
    deadline = time.monotonic() + 300
    while not (tmp_path / "checkpoint_1_3.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.interrupt()
    log, _ = process.communicate()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in log
    (line,) = summaries(log)
    assert line.startswith("epoch of training: loss ")


@pytest.mark.slow
def test_warm_up_trains_like_adaptive_loss(tmp_path):
    """In the epochs of --ce-warmup-epoch, or the updates of --ce-warmup-updates, the weights are those of
    plain training; after them they are not."""
    common = ("--max-update", 2, "--disable-validation", "--batch-size", 8)
    train(tmp_path / "plain", *common, "--criterion", "adaptive_loss", "--task", "language_modeling")
    log = train(tmp_path / "warm", *common, "--ce-warmup-epoch", 1)
    train(tmp_path / "two", *common, "--ce-warmup-updates", 2)
    train(tmp_path / "one", *common, "--ce-warmup-updates", 1)
    train(tmp_path / "cold", *common)
    assert_same_model(tmp_path / "plain", tmp_path / "warm", rtol=1e-4, atol=1e-6)
    assert_same_model(tmp_path / "warm", tmp_path / "two", rtol=0, atol=0)
    for name, other in [("plain", "cold"), ("plain", "one"), ("one", "cold")]:
        with pytest.raises(AssertionError):
            assert_same_model(tmp_path / name, tmp_path / other, rtol=1e-4, atol=1e-6)
    assert "norm_loss" not in log.split("begin training epoch 1")[1]
    assert not summaries(log)


@pytest.mark.slow
def test_activation_checkpointing_changes_nothing(tmp_path, small, short_run):
    folder, _ = short_run
    train(
        tmp_path,
        "--max-update",
        4,
        "--batch-size",
        8,
        "--checkpoint-activations",
        "--disable-validation",
        data=small,
    )
    assert_same_model(tmp_path, folder, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_plain_softmax_and_stock_task(tmp_path, small):
    """A transformer_lm without adaptive softmax, and fairseq's own language_modeling task."""
    model = (
        "--arch transformer_lm --decoder-layers 2 --decoder-embed-dim 32 --decoder-ffn-embed-dim 64 "
        "--decoder-attention-heads 2 --share-decoder-input-output-embed"
    ).split()
    log = train(tmp_path, "--max-update", 2, "--task", "language_modeling", data=small, model=model)
    assert logged(log, "valid", "loss")[0] != logged(log, "valid", "ori_loss")[0]
    result = evaluate(tmp_path, flags=f"--use-local --path {tmp_path / 'checkpoint_last.pt'}", data=small)
    assert result["loss"] == pytest.approx(logged(log, "valid", "loss")[0], abs=6e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision",
    [
        pytest.param("--memory-efficient-fp16", marks=needs_half_on_cpu),
        # fairseq's other half-precision optimizers ask for CUDA.
        pytest.param("--fp16", marks=NEEDS_CUDA),
    ],
)
def test_half_precision_follows_single_precision(tmp_path, precision):
    """The same losses, update by update, within what half precision costs."""
    flags = ("--max-update", 4, "--batch-size", 8, "--disable-validation", "--no-save")
    flags += ("--optimizer", "adam", "--lr", "0.001")
    single = logged(train(tmp_path, *flags), "train_inner", "loss")
    command = training_command(tmp_path, precision, "--fp16-init-scale", 4, *flags)
    if precision == "--fp16":
        command.remove("--cpu")
    half = logged(run(*command), "train_inner", "loss")
    assert len(half) == 4
    assert half == pytest.approx(single, rel=2e-3)


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory, small):
    """A plain LM, trained by fairseq alone."""
    folder = tmp_path_factory.mktemp("plain")
    flags = ("--max-update", 4, "--batch-size", 8, "--criterion", "adaptive_loss")
    return folder, train(folder, *flags, "--task", "language_modeling", data=small)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--finetune-from-model", "--restore-file"])
def test_continues_from_a_plain_checkpoint(plain_run, tmp_path, small, how):
    """A plain LM is the start of a TrimeLM: it starts from its loss."""
    plain, log = plain_run
    before = logged(log, "valid", "loss")[0]
    flags = (how, plain / "checkpoint_last.pt", "--max-update", 1, "--lr", "1e-9", "--batch-size", 8)
    if how == "--restore-file":
        flags += ("--reset-optimizer", "--reset-lr-scheduler", "--reset-dataloader", "--reset-meters")
        flags = (*flags[:3], 5, *flags[4:])
    log = train(tmp_path, *flags, data=small)
    assert logged(log, "valid", "ori_loss")[0] == pytest.approx(before, abs=0.002)


@pytest.mark.slow
def test_continues_from_a_published_checkpoint(tmp_path):
    path = REFERENCE / "checkpoints" / "word-trime" / "checkpoint_best.pt"
    model = (
        "--arch transformer_lm_wiki103 --decoder-layers 2 --decoder-embed-dim 96 --decoder-input-dim 96 "
        "--decoder-output-dim 96 --decoder-ffn-embed-dim 192 --decoder-attention-heads 4 "
        "--adaptive-input-cutoff 1000,3000 --adaptive-softmax-cutoff 1000,3000"
    ).split()
    flags = ("--finetune-from-model", path, "--max-update", 1, "--lr", "1e-9")
    log = train(tmp_path, *flags, model=model)
    # training.json: validation before the updates gave 7.009 / 7.091.
    assert logged(log, "valid", "loss")[0] == pytest.approx(7.009, abs=0.002)
    assert logged(log, "valid", "ori_loss")[0] == pytest.approx(7.091, abs=0.002)


def test_refusals(tmp_path):
    log = train(tmp_path, "--task", "language_modeling", "--ce-warmup-epoch", 1, fails=True)
    assert "use --task trime_language_modeling" in log.splitlines()[-1]
    log = train(tmp_path, "--use-local", fails=True)
    assert "the --criterion says which memory a token sees" in log.splitlines()[-1]
    log = train(tmp_path, "--adaptive-softmax-cutoff", "1000,9000", fails=True)
    assert "exceed the dictionary of DATA (6,248 types)" in log.splitlines()[-1]


def test_dictionary_of_the_checkpoint_to_start_from(tmp_path):
    path = REFERENCE / "checkpoints" / "char-trime_long" / "checkpoint_best.pt"
    log = train(tmp_path, "--finetune-from-model", path, fails=True)
    assert "dictionary of 88 types, DATA/dict.txt has 6,248" in log


@pytest.mark.slow
def test_hydra_trains_the_demo_model(tmp_path, small):
    """fairseq-hydra-train with config/demo.yaml, shortened."""
    output = run(
        "fairseq-hydra-train",
        *("--config-dir", ROOT / "config", "--config-name", "demo"),
        f"common.user_dir={ROOT / 'trime_fairseq'}",
        f"task.data={small}",
        f"checkpoint.save_dir={tmp_path / 'checkpoints'}",
        *("optimization.max_update=2", "common.log_interval=1", "common.cpu=true"),
        # As in the other tests: the main branch would drop the last batch of the validation text.
        "dataset.required_batch_size_multiple=1",
        "hydra.run.dir=" + str(tmp_path / "run"),
        cwd=tmp_path,
    )
    files = "".join(path.read_text() for path in (tmp_path / "run").glob("*.log"))
    losses = re.findall(r"valid on 'valid' subset.* norm_loss ([\d.]+)", output + files)
    assert losses, (output + files)[-3000:]
    assert f"loss {float(losses[-1]):.3f} (perplexity" in summaries(output)[0]
    flags = f"--use-local --tokens-per-sample 256 --path {tmp_path / 'checkpoints' / 'checkpoint_last.pt'}"
    result = evaluate(tmp_path, flags=flags, data=small)
    assert result["loss"] == pytest.approx(float(losses[-1]), abs=6e-4)


@pytest.mark.slow
def test_the_last_line_of_hydra(tmp_path, small):
    """Hydra would print a page of its own; a traceback comes on demand."""
    command = ["fairseq-hydra-train", "--config-dir", ROOT / "config", "--config-name", "demo"]
    command += [f"common.user_dir={ROOT / 'trime_fairseq'}", f"task.data={small}", "common.cpu=true"]
    command += ["criterion._name=trime_long_loss", f"hydra.run.dir={tmp_path / 'run'}"]
    output = run(*command, cwd=tmp_path, fails=True)
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith(
        "TRIME: error: --criterion trime_long_loss takes its memory from"
    )


def test_installed_folder_is_printed(tmp_path):
    folder = run(sys.executable, "-m", "trime_fairseq", cwd=tmp_path).strip().splitlines()[-1]
    assert folder == str(ROOT / "trime_fairseq")
