"""impl="auto" takes the kernels where they are faster and right, and nowhere else."""

import logging
import math

import pytest
import torch

from trime_fairseq.memory import autotune, memory_lse
from trime_fairseq.memory.autograd import LseInputs
from trime_fairseq.memory.chunked import chunked_lse

from .test_lse import random_problem


class Clock:
    """In place of CUDA's events: each implementation takes the milliseconds it is given."""

    now = 0.0

    def record(self):
        self.at = Clock.now

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return end.at - self.at


def computing(milliseconds, compute=chunked_lse):
    calls = []

    def timed(inputs):
        calls.append(inputs)
        Clock.now += milliseconds
        return compute(inputs)

    return timed, calls


@pytest.fixture
def problem(monkeypatch):
    monkeypatch.setattr(autotune, "_event", Clock)
    monkeypatch.setattr(autotune, "_chosen", {})
    monkeypatch.setattr(autotune, "_broken", set())
    found, _ = random_problem(1, 1, 30, 40, 8, types=4, dtype=torch.float32)
    found["queries"].requires_grad_()
    return LseInputs(**found, key_grad=(0, 40), tile_size=(16, 16))


def choose(monkeypatch, problem, triton, chunked_ms=3.0):
    monkeypatch.setattr(autotune, "chunked_lse", computing(chunked_ms)[0])
    return autotune.triton_if_faster(problem, triton) is not None


@pytest.mark.parametrize(("milliseconds", "faster"), [(1.0, True), (2.9, False), (5.0, False)])
def test_the_faster_one_is_chosen_and_remembered(monkeypatch, problem, milliseconds, faster):
    triton, calls = computing(milliseconds)
    assert choose(monkeypatch, problem, triton) == faster
    tried = len(calls)
    assert choose(monkeypatch, problem, triton) == faster
    assert len(calls) == tried + (1 if faster else 0)
    # Not where no gradients are wanted: that is another question.
    with torch.no_grad():
        choose(monkeypatch, problem, triton)
    assert len(calls) > tried


def test_wrong_results_are_not_used(monkeypatch, problem, caplog):
    def wrong(inputs):
        every, positive = chunked_lse(inputs)
        return every * 1.01, positive

    with caplog.at_level(logging.WARNING):
        assert not choose(monkeypatch, problem, computing(1.0, wrong)[0])
    assert "Triton kernels differ by" in caplog.text


def test_wrong_gradients_are_not_used(monkeypatch, problem, caplog):
    def wrong(inputs):
        every, positive = chunked_lse(
            inputs._replace(queries=1.0 * inputs.queries, keys=inputs.keys.detach())
        )
        return every + 0 * inputs.keys.sum(), positive

    with caplog.at_level(logging.WARNING):
        assert not choose(monkeypatch, problem, computing(1.0, wrong)[0])
    assert "Triton kernels differ by" in caplog.text


def test_a_kernel_that_fails_is_not_used(monkeypatch, problem, caplog):
    def fails(inputs):
        raise AssertionError("out of resource: shared memory")

    with caplog.at_level(logging.WARNING):
        assert not choose(monkeypatch, problem, fails)
    assert "out of resource: shared memory" in caplog.text


def test_a_kernel_that_fails_later_is_not_used_any_more(monkeypatch, problem, caplog):
    triton, calls = computing(1.0)
    assert choose(monkeypatch, problem, triton)

    def fails(inputs):
        calls.append(inputs)
        raise RuntimeError("a variant that does not compile")

    with caplog.at_level(logging.WARNING):
        assert not choose(monkeypatch, problem, fails)
    assert "a variant that does not compile" in caplog.text
    tried = len(calls)
    assert not choose(monkeypatch, problem, fails)
    assert len(calls) == tried


def test_a_batch_that_is_not_finite_decides_nothing(monkeypatch, problem):
    spoilt = problem._replace(queries=problem.queries.detach().clone().fill_(math.nan).requires_grad_())
    triton, _ = computing(1.0)
    assert not choose(monkeypatch, spoilt, triton)
    assert choose(monkeypatch, problem, triton)


@pytest.mark.skipif(not autotune._OUT_OF_MEMORY, reason="before PyTorch 1.13 it has no error of its own")
def test_no_room_for_the_trial_is_no_verdict(monkeypatch, problem, caplog):
    def no_room(inputs):
        raise torch.cuda.OutOfMemoryError("out of memory")

    assert not choose(monkeypatch, problem, no_room)
    assert not caplog.text
    assert choose(monkeypatch, problem, computing(1.0)[0])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_device():
    found, _ = random_problem(1, 1, 300, 400, 64, types=4, dtype=torch.float32)
    found = {k: v.to("cuda") if torch.is_tensor(v) else v for k, v in found.items()}
    torch.testing.assert_close(memory_lse(**found), memory_lse(**found, impl="naive"))
    assert autotune._chosen
