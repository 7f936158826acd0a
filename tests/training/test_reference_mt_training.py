"""Updates of trime_mt_loss by the real fairseq-train, against the losses of the published trainer."""

import json

import fairseq
import pytest

from tests.commands import run, run_ranks
from tests.training.translation import ORDER, RUNS, TOLERANCE, losses, training, valid

pytestmark = pytest.mark.process
TOKENS_OF_TEST = 1542


def flags_of(name):
    """Criterion and order of a run of the reference."""
    run = RUNS[name]
    flags = ["--criterion", run["criterion"], "--seed", run["seed"], "--max-update", run["updates"]]
    flags += ["--dist-func", run["dist_func"], "--temp", run["temp"]]
    flags += ["--topk-mem", run["topk_mem"]] if run["topk_mem"] else []
    return [*flags, *(ORDER if run["predefined_batches"] else [])]


def check(name, log):
    expected = RUNS[name]
    assert losses(log) == pytest.approx(expected["train_loss"], abs=TOLERANCE)
    assert valid(log) == pytest.approx([expected["valid_loss_after"]], abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ip", "l2"])
def test_published_losses(tmp_path, name):
    """Training goes on from a checkpoint in the published format."""
    log = run(*training(tmp_path, *flags_of(name)))
    check(name, log)
    assert losses(log, "norm_loss") == losses(log)
    plain = losses(log, "ori_loss")
    assert sum(plain) > sum(losses(log))
    assert valid(log, "ori_loss")[0] > valid(log)[0]


@pytest.mark.skipif(
    not fairseq.__version__.startswith("0.12.2"),
    reason="the batches are those of fairseq 0.12.2: later ones order sentences of equal length otherwise",
)
def test_published_losses_in_fairseqs_own_order(tmp_path):
    check("all", run(*training(tmp_path, *flags_of("all"))))


@pytest.mark.parametrize("name", ["ip", "l2", "all"])
def test_published_validation_before_training(tmp_path, name):
    """An update without a step. Validation is with the memories of its own batches."""
    words = [word for word in flags_of(name) if word not in ORDER]
    log = run(*training(tmp_path, *words, "--lr", 0.0, "--max-update", 1, "--no-save"))
    assert valid(log) == pytest.approx([RUNS[name]["valid_loss_before"]], abs=TOLERANCE)


@pytest.mark.slow
def test_published_losses_of_two_processes(tmp_path):
    """Each is the memory of the other, as far as the groups of batches are whole."""
    logs = run_ranks(training(tmp_path, *flags_of("two_ranks")), 2)
    check("two_ranks", logs[0])


@pytest.mark.slow
def test_an_epoch_that_leaves_a_process_without_a_batch(tmp_path):
    """With and without an order of its own, in training and validation: all tokens are trained on once."""
    small = tmp_path / "order.json"
    small.write_text(json.dumps(list(range(60))))
    common = "--criterion trime_mt_loss --topk-mem 8 --train-subset test --no-save --max-epoch 1".split()
    # Five batches, whose last step has one for the first process alone.
    common += ["--max-tokens", 500, "--required-batch-size-multiple", 1]
    for order in ([], ["--predefined-batches", small]):
        log = run_ranks(training(tmp_path, *common, *order), 2)[0]
        assert len(losses(log)) == 3
        assert sum(losses(log, "wpb")) == TOKENS_OF_TEST
        assert len(valid(log)) == 1
