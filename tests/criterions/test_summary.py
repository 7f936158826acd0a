"""The line at the end of a training. What processes do when they end is in tests/training."""

import io
import logging
import math
import sys

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


def line(ori_loss, norm_loss, **others):
    """That of a summary that has seen a single token."""
    summary = TrainingSummary(**others)
    summary.add_validation(logged(ori_loss=[ori_loss], norm_loss=[norm_loss], mem_mass=[0.5]))
    return summary.text()


def test_numbers_are_averages_over_tokens(dictionary):
    """Of updates of different sizes, from the criterion's own log."""
    model, criterion, summary = build(dictionary).eval(), make(dictionary).eval(), TrainingSummary()
    totals = dict.fromkeys(("ori_loss", "norm_loss", "mem_mass"), 0.0)
    for lengths in [(7, 3), (2,)]:
        log = criterion(model, sample_of(dictionary, *lengths))[2]
        with metrics.aggregate() as meters:
            TrimeLoss.reduce_metrics([log])
        summary.add_update(meters)
        totals = {name: total + log[name].item() / 12 for name, total in totals.items()}
    plain, memory = (totals[name] / math.log(2) for name in ("ori_loss", "norm_loss"))
    assert summary.text() == (
        f"TRIME: last epoch of training: loss {plain:.3f} (perplexity {2**plain:.2f}) without memories, "
        f"loss {memory:.3f} (perplexity {2**memory:.2f}) with those of training: "
        f"a gain of {plain - memory:.3f} bits; they hold {totals['mem_mass']:.2f} of the distribution"
    )


def test_what_is_summarised():
    """The last validation, of which the first subset; without one, the last epoch; of warm-ups nothing."""
    summary = TrainingSummary()
    assert summary.text() is None
    summary.begin_epoch()
    summary.add_update(logged(ori_loss=[9.0], loss=[9.0]))
    assert summary.text() is None
    for loss in (6.0, 5.0):
        summary.begin_epoch()
        summary.add_update(logged(ori_loss=[loss], norm_loss=[1.0], mem_mass=[0.5]))
        assert f"last epoch of training: loss {loss:.3f}" in summary.text()
    for loss in (4.0, 3.0):
        summary.begin_validation()
        for further in (0.0, 1.0):
            summary.add_validation(logged(ori_loss=[loss + further], norm_loss=[1.0], mem_mass=[0.5]))
        summary.begin_epoch()
        assert f"last validation: loss {loss:.3f}" in summary.text()


def test_memory_that_makes_it_worse():
    assert "loss 3.000 (perplexity 8.00) without" in line(3.0, 5.0)
    assert "loss 5.000 (perplexity 32.00) with those of training: a gain of -2.000 bits" in line(3.0, 5.0)


def test_memory_of_later_tokens():
    plain, later = line(3.0, 1.0), line(3.0, 1.0, sees_later_tokens=True)
    assert later.startswith(plain)
    assert "no language model: evaluate with fairseq-eval-lm" in later[len(plain) :]


@pytest.mark.parametrize(("loss", "text"), [(1e9, "perplexity inf"), (float("nan"), "perplexity nan")])
def test_a_training_that_failed(loss, text):
    """No error when the process ends."""
    assert text in line(loss, loss)


@pytest.mark.parametrize(("error", "lines"), [(ValueError("x"), 0), (KeyboardInterrupt(), 1)])
def test_an_error_has_the_last_word(monkeypatch, caplog, error, lines):
    """What Python keeps of the exception that ends a program."""
    summary = TrainingSummary()
    summary.add_validation(logged(ori_loss=[3.0], norm_loss=[1.0], mem_mass=[0.5]))
    monkeypatch.setattr(sys, "last_value", error, raising=False)
    caplog.set_level(logging.INFO)
    summary._log()
    assert len(caplog.records) == lines


def test_closed_log(capsys, monkeypatch):
    """As of a program that has run fairseq, and ends: neither an error nor a complaint of the logging."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    summary = TrainingSummary()
    summary.add_validation(logged(ori_loss=[3.0], norm_loss=[1.0], mem_mass=[0.5]))
    log = logging.getLogger("trime_fairseq.criterions.summary")
    monkeypatch.setattr(log, "level", logging.INFO)
    log.addHandler(handler)
    try:
        summary._log()
        assert stream.getvalue() == f"{summary.text()}\n"
        stream.close()
        summary._log()
    finally:
        log.removeHandler(handler)
    assert "error" not in capsys.readouterr().err
    assert logging.raiseExceptions
