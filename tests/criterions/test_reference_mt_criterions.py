"""trime_mt_loss against losses and gradients of the published code, on one process and on two."""

import sys

import pytest
import torch

from tests import recorded_translation as recorded
from tests.commands import run_ranks

SINGLE = [name for name, case in recorded.CASES.items() if len(case["ranks"]) == 1]
TWO = [name for name, case in recorded.CASES.items() if len(case["ranks"]) == 2]


def check(name, rank, found):
    truth = recorded.expected(name, rank)
    assert set(found) == set(truth)
    for key, value in truth.items():
        tolerance = dict(rtol=0, atol=1e-5) if key.startswith("grad") else dict(rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[key].to(value.dtype), value, **tolerance, msg=f"{name} {key}")


def test_all_cases_are_played():
    assert (len(SINGLE), len(TWO)) == (6, 2)


@pytest.mark.parametrize("model", [recorded.RecordedModel, recorded.ProjectingModel])
@pytest.mark.parametrize("name", SINGLE)
def test_one_process(name, model):
    check(name, 0, recorded.play(name, model=model))


@pytest.mark.process
@pytest.mark.slow
def test_two_processes_with_unequal_batches(tmp_path):
    """Each rank's loss, and its gradient of that loss alone."""
    run_ranks([sys.executable, "-m", "tests.ranks", "published_translation", tmp_path, *TWO], 2)
    for name in TWO:
        for rank in range(2):
            check(name, rank, torch.load(tmp_path / f"{name}.{rank}.pt"))


@pytest.mark.process
@pytest.mark.slow
def test_a_process_without_a_batch_changes_nothing(tmp_path):
    """It takes part in all that the other does, gives no key, and has no loss and no gradient."""
    run_ranks([sys.executable, "-m", "tests.ranks", "idle_translation", tmp_path, "ip_top8", "l2_top2"], 2)
    for name in ("ip_top8", "l2_top2"):
        busy, idle = (torch.load(tmp_path / f"{name}.{rank}.pt") for rank in range(2))
        truth = recorded.expected(name)
        for key in ("loss", "grad_x", "grad_weight"):
            torch.testing.assert_close(busy[key], truth[key], rtol=1e-5, atol=1e-5)
            assert not idle[key].any()
        assert busy["sample_size"] == truth["sample_size"]
        assert idle["sample_size"] == idle["ntokens"] == 0
