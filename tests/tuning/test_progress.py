"""Lines of progress, with a clock that the test moves."""

import logging

import pytest

from trime_fairseq.tuning import progress


def test_a_line_now_and_then(clock, caplog):
    caplog.set_level(logging.INFO)
    bar = progress.Progress(1000, "tokens", every=10)
    for _ in range(10):
        clock[0] += 4
        bar.add(100)
    assert caplog.messages == [
        "TRIME: 300 of 1,000 tokens (30%), 28 s left",
        "TRIME: 600 of 1,000 tokens (60%), 16 s left",
        "TRIME: 900 of 1,000 tokens (90%), 4 s left",
    ]


def test_nobody_knows_how_many_there_are(clock, caplog):
    caplog.set_level(logging.INFO)
    bar = progress.Progress(0, "settings tried")
    for _ in range(3):
        clock[0] += 10
        bar.add(1000)
    assert caplog.messages == ["TRIME: 2,000 settings tried"]


def test_what_is_quick_says_nothing(clock, caplog):
    caplog.set_level(logging.INFO)
    bar = progress.Progress(10, "tokens")
    bar.add(5)
    clock[0] += 60
    bar.add(5)  # the end
    assert not caplog.messages


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds, shown):
    assert progress.duration(seconds) == shown
