"""The line at the end of a training. What processes do when they end is in tests/training."""

import math

import pytest
from fairseq.logging import metrics

from tests.criterions.test_base import make, sample_of
from tests.small_models import build
from trime_fairseq.criterions import TrimeLoss
from trime_fairseq.criterions.summary import TrainingSummary


def logged(**losses):
    """What fairseq has logged of a step with a token for each value, in bits."""
    with metrics.aggregate() as meters:
        for name, values in losses.items():
            metrics.log_scalar(name, sum(values) / len(values), len(values))
    return meters


def test_numbers_are_averages_over_tokens(dictionary):
    """Of batches of different sizes, from the criterion's own log."""
    model, criterion = build(dictionary).eval(), make(dictionary).eval()
    summary = TrainingSummary()
    totals = dict.fromkeys(("ori_loss", "norm_loss", "mem_mass"), 0.0)
    for lengths in [(7, 3), (2,)]:
        log = criterion(model, sample_of(dictionary, *lengths))[2]
        with metrics.aggregate() as meters:
            TrimeLoss.reduce_metrics([log])
        summary.add(meters, criterion.training)
        totals = {name: total + log[name].item() / 12 for name, total in totals.items()}
    plain, memory = (totals[name] / math.log(2) for name in ("ori_loss", "norm_loss"))
    assert summary.text() == (
        f"TRIME: last validation: loss {plain:.3f} (perplexity {2**plain:.2f}) without memories, "
        f"loss {memory:.3f} (perplexity {2**memory:.2f}) with those of training: "
        f"a gain of {plain - memory:.3f} bits; they hold {totals['mem_mass']:.2f} of the distribution"
    )


def test_what_is_summarised():
    """The last validation; without one, the last epoch; of warm-ups nothing."""
    summary = TrainingSummary()
    assert summary.text() is None
    summary.begin_epoch()
    summary.add(logged(ori_loss=[9.0], loss=[9.0]), training=True)
    assert summary.text() is None
    summary.add(logged(ori_loss=[7.0], norm_loss=[5.0], mem_mass=[0.5]), training=True)
    summary.add(logged(ori_loss=[4.0, 4.0], norm_loss=[2.0, 2.0], mem_mass=[0.2, 0.2]), training=True)
    assert "last epoch of training: loss 5.000 (perplexity 32.00) without" in summary.text()
    assert "loss 3.000 (perplexity 8.00) with those of training: a gain of 2.000 bits; they hold 0.30" in (
        summary.text()
    )
    summary.begin_epoch()
    assert summary.text() is None
    summary.add(logged(ori_loss=[7.0], norm_loss=[8.0], mem_mass=[0.5]), training=True)
    assert "a gain of -1.000 bits" in summary.text()
    for loss in (6.0, 5.0):
        summary.begin_validation()
        summary.add(logged(ori_loss=[loss], norm_loss=[1.0], mem_mass=[0.5]), training=False)
        summary.begin_epoch()
        assert f"last validation: loss {loss:.3f}" in summary.text()


def test_memory_of_later_tokens():
    texts = []
    for sees_later_tokens in (False, True):
        summary = TrainingSummary(sees_later_tokens)
        summary.add(logged(ori_loss=[3.0], norm_loss=[1.0], mem_mass=[0.5]), training=False)
        texts.append(summary.text())
    assert texts[1].startswith(texts[0])
    assert "no language model: evaluate with fairseq-eval-lm" in texts[1][len(texts[0]) :]


@pytest.mark.parametrize(("loss", "text"), [(1e9, "perplexity inf"), (float("nan"), "perplexity nan")])
def test_a_training_that_failed(loss, text):
    """No error when the process ends."""
    summary = TrainingSummary()
    summary.add(logged(ori_loss=[loss], norm_loss=[loss], mem_mass=[0.5]), training=False)
    assert text in summary.text()
