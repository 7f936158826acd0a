"""The numerics of half precision on CUDA, with the roundings of CUDA on a CPU."""

import pytest
import torch

from tests.commands import needs_half_on_cpu
from trime_fairseq.memory import Visibility, memory_lse, numerics, token_softmax

HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture
def rounded(monkeypatch):
    """Factors of half precision, sums of float32."""

    def product(first, second):
        assert first.dtype == second.dtype
        assert first.element_size() == 2
        return torch.bmm(first.float(), second.float())

    monkeypatch.setattr(numerics, "_sums_in_float32", lambda device, dtype: dtype in HALVES)
    monkeypatch.setattr(numerics, "_float32_product", product)


def gradients(queries, keys, scale, impl, tile=(0, 0)):
    """Of a loss that weights one row 50 times as much as the others, as rare words do."""
    queries, keys = (tensor.detach().requires_grad_() for tensor in (queries, keys))
    tokens = torch.arange(len(queries)) % 7, torch.arange(len(keys)) % 7
    visibility = Visibility.consecutive(len(queries), (len(queries),), len(keys) - len(queries))
    lse = memory_lse(queries, keys, *tokens, visibility, 0.25, impl=impl, tile=tile)
    weight = torch.full((len(queries),), 0.02).to(lse[0])
    weight[3] = 1.0
    (scale * weight * (lse[0] - lse[1])).sum().backward()
    return [tensor.grad.double() / scale for tensor in (queries, keys)]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("scale", [1.0, 2.0**12])
def test_gradients_of_memories(rounded, dtype, scale):
    torch.manual_seed(1)
    queries, keys = (torch.randn(n, 16).to(dtype) for n in (60, 3000))
    expected = gradients(queries.double(), keys.double(), scale, "naive")
    for found, truth in zip(gradients(queries, keys, scale, "chunked", (32, 1024)), expected):
        tolerance = (2e-3 if dtype == torch.float16 else 2e-2) * truth.abs().max().item()
        torch.testing.assert_close(found, truth, rtol=0, atol=tolerance)
        assert (found - truth).norm() < (1e-3 if dtype == torch.float16 else 8e-3) * truth.norm()


@needs_half_on_cpu
def test_small_probabilities_of_a_large_vocabulary_do_not_vanish(monkeypatch):
    """A type of probability 2e-8 still learns that it is not the target: relative to a largest gradient of 1
    float16 would round it to zero."""
    monkeypatch.setattr(token_softmax, "_CHUNK", 64)
    weight = torch.zeros(40, 1)
    weight[0], weight[1:] = 8.875, -8.875
    weight = weight.half().requires_grad_()
    features = torch.ones(6, 1).half()
    a, b = token_softmax.linear_lse_and_pick(features, weight, None, torch.zeros(6, dtype=torch.int64))
    (2.0**12 * (a - 0 * b).sum()).backward()
    expected = (weight.double().squeeze(1).softmax(0) * 6 * 2.0**12)[1:].detach()
    assert 1e-8 < expected[0] / 2.0**12 / 6 < 3e-8
    torch.testing.assert_close(weight.grad[1:, 0].double(), expected, rtol=2e-2, atol=0)


@needs_half_on_cpu
def test_a_frequent_target_does_not_overflow_in_float16():
    """2,000 tokens of one type: their gradients add up to more than float16 holds, before they are scaled."""
    torch.manual_seed(0)
    features, weight = (torch.randn(2000, 16) + 1).half(), (0.1 * torch.randn(6, 16)).half()
    target, grads = torch.zeros(2000, dtype=torch.int64), []
    for dtype in (torch.float16, torch.float64):
        inputs = [t.detach().to(dtype).requires_grad_() for t in (features, weight)]
        a, b = token_softmax.linear_lse_and_pick(*inputs, None, target)
        (a - b).sum().backward()
        grads.append([t.grad.double() for t in inputs])
    for ours, exact in zip(*grads):
        torch.testing.assert_close(ours, exact, rtol=1e-2, atol=1e-2)
