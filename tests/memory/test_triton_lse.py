"""The Triton implementation of memory_lse, on CUDA or in Triton's interpreter, against the naive one."""

import pytest
import torch

from trime_fairseq.memory import Visibility, memory_lse

from .test_lse import random_problem

pytest.importorskip("triton", reason="needs Triton, which comes with PyTorch for CUDA")
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
pytestmark = [pytest.mark.cuda] if CUDA else []
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
DTYPES = [
    torch.float32,
    torch.float16,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(not CUDA, reason="Triton's interpreter multiplies the bits of bfloat16"),
    ),
]


def of_loss(problem, impl, dtype, device, scale=1.0, **settings):
    """Both results, and the gradients of a sum of them with different weights."""
    problem = {k: v.to(device) if torch.is_tensor(v) else v for k, v in problem.items()}
    inputs = [problem[name].to(dtype).detach().requires_grad_() for name in ("queries", "keys")]
    results = memory_lse(**{**problem, "queries": inputs[0], "keys": inputs[1]}, impl=impl, **settings)
    weights = torch.linspace(0.5, 1.5, len(inputs[0]), dtype=results[0].dtype, device=device)
    # As in the objective, rows without a visible or positive key have no part in the loss.
    total = sum(((-1) ** n * weights * r.masked_fill(r.isinf(), 0.0)).sum() for n, r in enumerate(results))
    (scale * total).backward()
    return [r.detach().cpu().double() for r in results], [i.grad.cpu().double() / scale for i in inputs]


def agrees(problem, dtype, scale=1.0, **settings):
    """The same as the naive implementation in float64 on the inputs rounded to ``dtype``."""
    for name in ("queries", "keys"):
        problem[name] = problem[name].to(dtype).double()
    expected, expected_grads = of_loss(problem, "naive", torch.float64, "cpu", **settings)
    results, grads = of_loss(problem, "triton", dtype, DEVICE, scale, **settings)
    for ours, truth in zip(results, expected):
        torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-5)
    for ours, truth in zip(grads, expected_grads):
        tolerance = TOLERANCE[dtype] * max(1e-3, truth.abs().max().item())
        torch.testing.assert_close(ours, truth, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_random_intervals(seed, dtype):
    """Ragged in every dimension, over several blocks of keys, with rows that see nothing."""
    sizes = [(1, 5, 3, 7), (3, 40, 150, 20), (2, 17, 300, 65), (1, 150, 129, 33)][seed]
    problem, _ = random_problem(seed, *sizes, types=5, spread=2.0)
    agrees(problem, dtype)


VISIBILITIES = {
    "own segment": (Visibility.own_segment(3, 50), 150),
    "consecutive": (Visibility.consecutive(50, (50, 30, 50), 60), 190),
    "all segments": (Visibility.all_segments(50, (50, 30, 50), 60, 260, False), 260),
    "other segments": (Visibility.all_segments(50, (50, 30, 50), 60, 260, True), 260),
}


def memories(kind, dimension=24):
    visibility, keys = VISIBILITIES[kind]
    torch.manual_seed(1)
    return {
        "queries": torch.randn(150, dimension, dtype=torch.float64),
        "keys": torch.randn(keys, dimension, dtype=torch.float64),
        "query_targets": torch.randint(0, 9, (150,)),
        "key_tokens": torch.randint(0, 9, (keys,)),
        "visibility": visibility,
        "scale": dimension**-0.5,
    }


@pytest.mark.parametrize("kind", VISIBILITIES)
def test_memories_of_the_criterions(kind):
    agrees(memories(kind), torch.float32)


@pytest.mark.parametrize("keys", [0, 130])
def test_nothing_to_see(keys):
    problem = memories("own segment")
    problem = {**problem, "keys": problem["keys"][:keys], "key_tokens": problem["key_tokens"][:keys]}
    problem["visibility"] = Visibility(*torch.tensor([[5], [5]]).expand(2, 150))
    results, grads = of_loss(problem, "triton", torch.float32, DEVICE)
    assert all(result.isneginf().all() for result in results)
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("tile", [(64, 64), (150, 40)])
def test_tiles_of_backward_and_keys_without_gradient(tile):
    agrees(memories("consecutive"), torch.float32, tile=tile, key_grad=(60, 190))


def test_many_keys_are_split_among_programs():
    """Over three splits of keys, of which the middle one is skipped by all queries of a block, and one row
    sees nothing of the last."""
    problem, _ = random_problem(5, 1, 20, 4500, 8, types=50)
    begin = torch.full((20,), 30)
    end = torch.full((20,), 4480)
    begin[0], end[1], end[2] = 4400, 1000, 0
    problem["visibility"] = Visibility(begin, end, torch.full((20,), 2040), torch.full((20,), 4100))
    agrees(problem, torch.float32)


def test_wide_heads():
    agrees(memories("all segments", dimension=1100), torch.float32)


def test_loss_scale_does_not_overflow():
    agrees(memories("consecutive"), torch.float16, scale=2.0**17)


def test_same_bits_every_time():
    runs = [of_loss(memories("consecutive"), "triton", torch.float16, DEVICE) for _ in range(2)]
    for first, second in zip(runs[0][0] + runs[0][1], runs[1][0] + runs[1][1]):
        assert torch.equal(first, second)


def test_without_gradient():
    problem = memories("consecutive")
    with torch.no_grad():
        problem = {k: v.to(DEVICE) if torch.is_tensor(v) else v for k, v in problem.items()}
        inputs = {name: problem[name].float() for name in ("queries", "keys")}
        results = memory_lse(**{**problem, **inputs}, impl="triton")
        expected = memory_lse(**{**problem, **inputs}, impl="naive")
    torch.testing.assert_close(results, expected)


@pytest.mark.skipif(CUDA, reason="there is a device")
def test_without_a_device_it_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="needs a CUDA device"):
        memory_lse(**memories("consecutive"), impl="triton")


def test_double_precision_is_refused():
    with pytest.raises(ValueError, match="takes float16, bfloat16 and float32"):
        memory_lse(**memories("consecutive"), impl="triton")
