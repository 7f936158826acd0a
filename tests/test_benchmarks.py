"""What the benchmarks compare with is the same thing, and they count what they say."""

import sys

import pytest
import torch

from tests.commands import ROOT
from trime_fairseq.memory import memory_lse, trime_log_prob

sys.path.insert(0, str(ROOT / "benchmarks"))
import criterion_step  # noqa: E402
import mt_criterion  # noqa: E402


def work(memory, impl="chunked", queries=24, memories=24):
    if memory == "local":
        memories = queries
    sizes = dict(queries=queries, memories=memories, segment=8, width=4, types=30, repeats=1)
    return criterion_step.Work(impl=impl, memory=memory, device="cpu", dtype="float32", **sizes)


@pytest.mark.parametrize("memory", ["local", "long", "ext"])
def test_published_steps_are_the_same_loss(memory):
    torch.manual_seed(1)
    keys, tokens = torch.randn(24, 4), torch.randint(0, 5, (24,))
    token_lse, target_logit = torch.randn(2, 24)
    visibility = criterion_step.visibility_of(work(memory), 24, 0)
    problem = (keys, keys, tokens, tokens, visibility)
    expected = -trime_log_prob(token_lse, target_logit, *memory_lse(*problem, 0.5))
    torch.testing.assert_close(
        criterion_step.published_loss(token_lse, target_logit, *problem), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("memory", ["local", "long", "ext"])
@pytest.mark.parametrize("memories", [24, 80])
def test_visible_pairs_are_counted(memory, memories):
    asked = work(memory, memories=memories)
    memories, before = asked.memories, asked.memories - asked.queries
    visibility = criterion_step.visibility_of(asked, 24, before)
    pairs = criterion_step.visible_pairs(visibility, memories // visibility.repeats)
    assert pairs == (~visibility.dense(memories, torch.device("cpu"))).sum().item()
    expected = {"local": 3 * 28, "long": 24 * before + 24 * 23 // 2, "ext": 24 * (memories - 8) + 3 * 28}
    assert pairs == expected[memory]


@pytest.mark.parametrize("impl", ["naive", "chunked", "none"])
def test_a_step_runs(impl):
    step, operations = criterion_step.make_step(work("ext", impl, memories=40), 0, 1)
    step()
    assert operations == 2 * 4 * 4 * (24 * 32 + 3 * 28)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_published_steps_of_translation_are_the_same_loss(metric):
    """And so are their gradients."""
    losses, gradients = [], []
    for impl in ("published", "trime_mt_loss"):
        work = mt_criterion.Work(impl, 48, 30, 8, 6, 3, metric, repeats=1, device="cpu")
        step, inputs = mt_criterion.make_step(work)
        losses.append(step())
        gradients.append([tensor.grad for tensor in inputs])
    torch.testing.assert_close(*losses)
    for one, two in zip(*gradients):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    plain, _ = mt_criterion.make_step(mt_criterion.Work("cross-entropy", 48, 30, 8, 6, 3, metric, 1, "cpu"))
    assert (plain() - losses[0]).abs() > 0.1
