"""Every criterion against loss and gradients of the published code, on one process and on several."""

import sys

import pytest
import torch

from tests import recorded
from tests.commands import run_ranks

SINGLE = [name for name, case in recorded.CASES.items() if len(case["B"]) == 1]
SEVERAL = [name for name, case in recorded.CASES.items() if len(case["B"]) > 1]


def check(name, rank, found):
    truth = recorded.expected(name, rank)
    assert set(found) >= set(truth) > {"loss", f"rank{rank}/grad_x", f"rank{rank}/grad_reps"}
    for key, value in truth.items():
        ours = found[key].to(value.dtype)
        torch.testing.assert_close(ours, value, rtol=1e-5, atol=2e-6, msg=f"{name} {key}")


@pytest.mark.parametrize("name", SINGLE)
def test_one_process(name):
    check(name, 0, recorded.play(name))


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_several_processes(world, tmp_path):
    """Groups and ragged batches; each rank's loss, and its gradient of that loss alone."""
    cases = [name for name in SEVERAL if len(recorded.CASES[name]["B"]) == world]
    assert len(cases) == {2: 3, 4: 1}[world]
    run_ranks([sys.executable, "-m", "tests.ranks", "published", tmp_path, *cases], world)
    for name in cases:
        for rank in range(world):
            check(name, rank, torch.load(tmp_path / f"{name}.{rank}.pt"))
