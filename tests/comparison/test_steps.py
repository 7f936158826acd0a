"""Which step begins, and what time is left."""

import logging

from trime_fairseq.comparison.steps import Steps


def test_lines(clock, caplog):
    found = Steps(4, ("tuning", "test"))
    with caplog.at_level(logging.INFO):
        found.skip("a: taken", "tuning", "test")
        for name in "bc":
            for kind, seconds in (("tuning", 100), ("test", 20)):
                with found.step(f"{name}: {kind}", kind):
                    clock[0] += seconds
        found.skip("d: settings taken", "tuning")
        with found.step("d: test", "test"):
            clock[0] += 20
    lines = [record.getMessage().removeprefix("TRIME: ") for record in caplog.records]
    assert lines == [
        "step 2 of 8: a: taken",
        "step 3 of 8: b: tuning",
        # Nothing is known of a kind that was not there yet.
        "step 4 of 8: b: test",
        "step 5 of 8: c: tuning, about 4 min 0 s left in all",
        "step 6 of 8: c: test, about 2 min 20 s left in all",
        "step 7 of 8: d: settings taken",
        "step 8 of 8: d: test, about 20 s left in all",
    ]
