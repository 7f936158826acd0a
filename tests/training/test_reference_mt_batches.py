"""The order of training sentences, by the real fairseq-train: the published losses of cross-entropy, batch by
batch; resumed within an epoch, on two processes; what fairseq's own task does without an order."""

import json
import re

import pytest

from tests.commands import run, run_ranks
from tests.small_pairs import copy_data
from tests.training.translation import (
    MT,
    ORDER,
    RUNS,
    TASK,
    TOLERANCE,
    losses,
    plain_checkpoint,
    training,
    valid,
)

pytestmark = pytest.mark.process
CRITERION = ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.0"]
EXPECTED = RUNS["cross_entropy"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return plain_checkpoint(tmp_path_factory.mktemp("start"))


def test_published_losses_and_validation(tmp_path, start):
    log = run(*training(tmp_path, *CRITERION, *ORDER, "--max-update", 20, start=start))
    assert losses(log) == pytest.approx(EXPECTED["train_loss"], abs=TOLERANCE)
    assert valid(log) == pytest.approx([EXPECTED["valid_loss_after"]], abs=TOLERANCE)
    # fairseq-validate takes the task from the checkpoint. The list need not be there any more.
    words = ["fairseq-validate", MT / "data", *TASK, "--cpu", "--max-tokens", 700]
    log = run(*words, "--path", tmp_path / "checkpoint_last.pt", "--valid-subset", "valid")
    assert valid(log) == pytest.approx([EXPECTED["valid_loss_after"]], abs=TOLERANCE)


def test_resumed_within_an_epoch(tmp_path, start):
    run(*training(tmp_path, *CRITERION, *ORDER, "--max-update", 7, "--disable-validation", start=start))
    more = [*CRITERION, "--max-update", 20, "--disable-validation"]
    log = run(*training(tmp_path, *more, *ORDER, start=None))
    assert losses(log) == pytest.approx(EXPECTED["train_loss"][7:], abs=TOLERANCE)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(list(range(3000))))
    more[-2] = 30
    log = run(*training(tmp_path, *more, "--predefined-batches", other, start=None), fails=True)
    assert log.splitlines()[-1].startswith("TRIME: error: --predefined-batches is another list than the one")


@pytest.mark.slow
def test_two_processes_resume(tmp_path, start):
    more = [*CRITERION, *ORDER, "--disable-validation"]
    whole = run_ranks(training(tmp_path / "whole", *more, "--max-update", 8, start=start), 2)
    assert len(losses(whole[0])) == 8
    run_ranks(training(tmp_path / "part", *more, "--max-update", 3, start=start), 2)
    rest = run_ranks(training(tmp_path / "part", *more, "--max-update", 8, start=None), 2)
    assert losses(rest[0]) == losses(whole[0])[3:]


def test_without_an_order_fairseqs_own(tmp_path, start):
    """Losses, translations in training and their BLEU are those of ``--task translation``, where that leaves
    nothing out."""
    bleu = ["--eval-bleu", "--eval-bleu-args", '{"beam": 2, "max_len_a": 1.2, "max_len_b": 10}']
    bleu += ["--eval-bleu-remove-bpe", "--eval-bleu-print-samples"]
    more = [*CRITERION, *bleu, "--max-update", 3, "--required-batch-size-multiple", 1, "--no-save"]
    found = []
    for task in ("translation", "trime_translation"):
        log = run(*training(tmp_path / task, *more, "--task", task, start=start))
        found.append((losses(log), valid(log), valid(log, "bleu"), log.count("example hypothesis: ")))
    ours, stock = found
    assert ours == stock
    assert len(ours[0]) == 3
    assert len(ours[1]) == len(ours[2]) == 1
    assert ours[3] > 1


def test_refused_in_one_line(tmp_path, start):
    folder = copy_data(tmp_path / "data")
    (folder / "train.es-en.en.bin").write_bytes(b"")
    words = training(tmp_path, *CRITERION, *ORDER, data=folder, start=start)
    last = run(*words, fails=True).splitlines()[-1]
    assert last.startswith("TRIME: error: ")
    assert "train.es-en.en.bin has 0 bytes, but by train.es-en.en.idx it must have" in last
    short = tmp_path / "short.json"
    short.write_text("[0, 1, 2]")
    words = training(tmp_path, *CRITERION, "--predefined-batches", short, start=start)
    last = run(*words, fails=True).splitlines()[-1]
    assert last.startswith(f"TRIME: error: --predefined-batches {short} lists 3 sentences, but the training")


@pytest.mark.slow
@pytest.mark.parametrize("in_order", [False, True])
def test_ranks_without_sentences_take_part(tmp_path, in_order):
    """300 pairs in 5 batches, 120 of validation in 3: in its last step the second of two ranks has none."""
    order = tmp_path / "order.json"
    order.write_text(json.dumps(list(range(300))[::-1]))
    flags = "--criterion trime_mt_loss --temp 10 --topk-mem 8 --train-subset store --max-epoch 1".split()
    flags += ["--eval-bleu", "--eval-bleu-args", '{"beam": 1}', "--eval-bleu-remove-bpe", "--no-save"]
    flags += ["--lr", 0, "--max-tokens", 4000, "--batch-size", 64, "--batch-size-valid", 40]
    flags += ["--predefined-batches", order] if in_order else []
    one = run(*training(tmp_path, *flags))
    two, _ = run_ranks(training(tmp_path, *flags), 2)
    for log, steps, longest in ((one, 5, 64), (two, 3, 128)):
        sentences = losses(log, "bsz")
        assert len(sentences) == steps
        assert sum(sentences) == 300
        assert max(sentences) == longest
    # The last line of a training says what the memory was worth.
    plain, memory = valid(two, "ori_loss")[0], valid(two, "norm_loss")[0]
    ending = f"last validation: loss {plain:.3f} .* without memories, loss {memory:.3f}"
    assert re.search(ending, two.splitlines()[-1])
    for name in ("bleu", "ori_loss"):
        assert valid(two, name) == valid(one, name)
        assert len(valid(one, name)) == 1
