"""memory_lse against explicit loops, finite differences and its own variations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracle
from tests.commands import HALF_ON_CPU
from trime_fairseq.memory import Visibility, memory_lse, trime_log_prob

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


def random_problem(seed, parts, queries, keys, width, types, dtype=torch.float64, spread=1.0):
    """Random intervals, some of them empty or reaching beyond the keys, with an excluded part."""
    rng = torch.Generator().manual_seed(seed)

    def draw(low, high, count):
        return torch.randint(low, high + 1, (count,), generator=rng)

    begin = draw(-2, keys, queries)
    end = begin + draw(-1, keys + 2, queries)
    skip_begin = draw(0, keys, queries)
    skip_end = skip_begin + draw(0, keys, queries)
    visibility = Visibility(begin, end, skip_begin, skip_end, repeats=parts)
    rows = [r.repeat(parts).tolist() for r in (begin, end, skip_begin, skip_end)]

    def sees(i, j):
        part, j = divmod(j, keys)
        return i // queries == part and rows[0][i] <= j < rows[1][i] and not rows[2][i] <= j < rows[3][i]

    def normal(rows):
        return (spread * torch.randn(rows, width, generator=rng, dtype=torch.float64)).to(dtype)

    return {
        "queries": normal(parts * queries),
        "keys": normal(parts * keys),
        "query_targets": draw(0, types - 1, parts * queries),
        "key_tokens": draw(0, types - 1, parts * keys),
        "visibility": visibility,
        "scale": width**-0.5,
    }, sees


def on(device, problem):
    return {k: v.to(device) if torch.is_tensor(v) else v for k, v in problem.items()}


@given(
    seed=st.integers(0, 10**6),
    parts=st.integers(1, 4),
    queries=st.integers(1, 12),
    keys=st.integers(1, 14),
    width=st.integers(1, 5),
    types=st.integers(1, 4),
    tile=st.sampled_from([(1, 1), (2, 3), (5, 4), (64, 64)]),
    spread=st.sampled_from([0.0, 1.0, 20.0]),
)
@settings(max_examples=80, deadline=None)
def test_equals_explicit_loops(seed, parts, queries, keys, width, types, tile, spread):
    problem, sees = random_problem(seed, parts, queries, keys, width, types, spread=spread)
    lists = [problem[k].tolist() for k in ("queries", "keys", "query_targets", "key_tokens")]
    expected = oracle.memory_lse(*lists, sees, problem["scale"])
    for impl in ("naive", "chunked"):
        found = memory_lse(**problem, impl=impl, tile=tile)
        for ours, truth in zip(found, expected):
            torch.testing.assert_close(ours, torch.tensor(truth, dtype=torch.float64))


@pytest.mark.parametrize("impl", ["naive", "chunked"])
@pytest.mark.parametrize("seed", range(6))
def test_gradcheck(impl, seed):
    problem, _ = random_problem(seed, parts=2, queries=5, keys=6, width=3, types=2)
    token_lse, target_logit = torch.randn(2, 10, dtype=torch.float64)

    # Through the objective: rows without memory or without positive must keep finite gradients.
    def loss(queries, keys):
        lse = memory_lse(**{**problem, "queries": queries, "keys": keys}, impl=impl, tile=(2, 4))
        return trime_log_prob(token_lse, target_logit, *lse)

    inputs = problem["queries"].requires_grad_(), problem["keys"].requires_grad_()
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("device", DEVICES)
def test_gradient_is_the_formula(device):
    """d loss / d s_ij = exp(s_ij - D_i) - [x_j = w_i] exp(s_ij - N_i), with upstream weights that differ."""
    problem, sees = random_problem(3, parts=1, queries=9, keys=11, width=4, types=3)
    queries, keys = problem["queries"], problem["keys"]
    a, b, weight = torch.randn(3, 9, dtype=torch.float64)
    similarity = problem["scale"] * queries @ keys.t()
    similarity = similarity.masked_fill(
        ~torch.tensor([[sees(i, j) for j in range(11)] for i in range(9)]), -math.inf
    )
    match = problem["key_tokens"] == problem["query_targets"].unsqueeze(1)
    positive = similarity.masked_fill(~match, -math.inf)
    d = torch.logaddexp(a, similarity.logsumexp(1)).unsqueeze(1)
    n = torch.logaddexp(b, positive.logsumexp(1)).unsqueeze(1)
    grad = problem["scale"] * weight.unsqueeze(1) * ((similarity - d).exp() - (positive - n).exp())

    problem = on(device, problem)
    q, k = problem["queries"].requires_grad_(), problem["keys"].requires_grad_()
    lse = memory_lse(**problem, impl="chunked", tile=(4, 3))
    a, b, weight = a.to(device), b.to(device), weight.to(device)
    (-weight * trime_log_prob(a, b, *lse)).sum().backward()
    torch.testing.assert_close(q.grad.cpu(), grad @ keys)
    torch.testing.assert_close(k.grad.cpu(), grad.t() @ queries)


def test_rows_with_nothing_to_see_or_no_positive():
    queries = torch.randn(3, 4, requires_grad=True)
    keys = torch.randn(2, 4, requires_grad=True)
    visibility = Visibility(torch.tensor([0, 0, 0]), torch.tensor([0, 2, 2]))
    targets, tokens = torch.tensor([7, 7, 5]), torch.tensor([5, 5])
    every, positive = memory_lse(queries, keys, targets, tokens, visibility, 0.5)
    assert every.isinf().tolist() == [True, False, False]
    assert positive.isinf().tolist() == [True, True, False]
    token_lse, target_logit = torch.zeros(3), torch.full((3,), -2.0)
    log_prob = trime_log_prob(token_lse, target_logit, every, positive)
    assert log_prob[0].item() == pytest.approx(-2.0)
    log_prob.sum().backward()
    assert queries.grad.isfinite().all()
    assert keys.grad.isfinite().all()
    assert queries.grad[0].eq(0).all()
    assert queries.grad[1].ne(0).any()


def test_no_keys_at_all():
    visibility = Visibility(torch.tensor([0, 0]), torch.tensor([0, 0]))
    nothing = torch.zeros(0, dtype=torch.int64)
    for impl in ("naive", "chunked"):
        lse = memory_lse(
            torch.randn(2, 3), torch.randn(0, 3), torch.tensor([1, 2]), nothing, visibility, 1.0, impl=impl
        )
        assert all(part.tolist() == [-math.inf, -math.inf] for part in lse)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(1, 252, 507), (3, 123, 123), (2, 1, 300), (40, 7, 7)])
def test_tile_size_does_not_matter(device, shape):
    parts, queries, keys = shape
    problem, _ = random_problem(5, parts, queries, keys, width=16, types=5, dtype=torch.float32)
    problem = on(device, problem)
    results = []
    for impl, tile in [("naive", (0, 0)), ("chunked", (0, 0)), ("chunked", (33, 71)), ("chunked", (500, 9))]:
        q, k = (problem[n].detach().clone().requires_grad_() for n in ("queries", "keys"))
        lse = memory_lse(**{**problem, "queries": q, "keys": k}, impl=impl, tile=tile)
        zeros = torch.zeros(parts * queries, device=device)
        trime_log_prob(zeros, zeros - 3, *lse).sum().backward()
        results.append((*lse, q.grad, k.grad))
    for other in results[1:]:
        for one, two in zip(results[0], other):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_error_budget(device, dtype):
    """Our error in half precision stays within that of the plain expression in half precision, and our
    sums, being float32, within rounding of the float32 truth for the same inputs."""
    if dtype == torch.float16 and device == "cpu" and not HALF_ON_CPU:
        pytest.skip("float16 arithmetic on the CPU needs PyTorch 2.2")
    problem, _ = random_problem(7, 1, 200, 300, width=64, types=9, dtype=dtype, spread=2.0)
    problem = on(device, problem)
    exact = {**problem, "queries": problem["queries"].float(), "keys": problem["keys"].float()}

    def both(inputs, impl):
        q, k = (inputs[n].detach().clone().requires_grad_() for n in ("queries", "keys"))
        every, positive = memory_lse(**{**inputs, "queries": q, "keys": k}, impl=impl)
        zeros = torch.zeros_like(every)
        trime_log_prob(zeros, zeros - 5, every, positive).sum().backward()
        return every, positive, q.grad, k.grad

    truth = both(exact, "naive")
    ours = both(problem, "chunked")
    assert ours[0].dtype == ours[1].dtype == torch.float32
    for one, two in zip(truth[:2], ours[:2]):
        torch.testing.assert_close(one, two, rtol=2e-6, atol=2e-6)
    # Gradients come back in half precision: one rounding away from the truth.
    for one, two in zip(truth[2:], ours[2:]):
        assert two.dtype == dtype
        rounding = torch.finfo(dtype).eps
        torch.testing.assert_close(one, two.float(), rtol=rounding, atol=rounding * one.abs().max().item())

    similarity = (problem["queries"] @ problem["keys"].t()) * problem["scale"]
    hidden = problem["visibility"].dense(300, similarity.device)
    plain = similarity.masked_fill(hidden, -math.inf).logsumexp(1).float()
    finite = truth[0].isfinite()
    plain_error = (truth[0] - plain).abs()[finite]
    our_error = (truth[0] - ours[0]).abs()[finite]
    assert (our_error <= plain_error + 1e-4).all()
    # The plain expression must be worse somewhere, or this test shows nothing.
    assert plain_error.max() > 10 * our_error.max()


def test_autocast_does_not_round_the_sums():
    problem, _ = random_problem(2, 1, 20, 20, width=8, types=3, dtype=torch.float32)
    expected = memory_lse(**problem)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = memory_lse(**problem)
    assert all(torch.equal(one, two) for one, two in zip(expected, found))


def test_strong_match_far_below_the_largest_score_is_not_lost():
    """exp(P - A) underflows in float32 here; the positive must still be found."""
    queries = torch.tensor([[1.0]])
    keys = torch.tensor([[300.0], [-300.0]])
    visibility = Visibility(torch.tensor([0]), torch.tensor([2]))
    every, positive = memory_lse(queries, keys, torch.tensor([1]), torch.tensor([0, 1]), visibility, 1.0)
    assert every.item() == 300.0
    assert positive.item() == -300.0


def test_bad_input():
    q, k = torch.randn(2, 4), torch.randn(3, 4)
    t, x = torch.zeros(2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    visibility = Visibility(torch.tensor([0, 0]), torch.tensor([1, 3]))
    with pytest.raises(ValueError, match="unknown impl"):
        memory_lse(q, k, t, x, visibility, 1.0, impl="fast")
    with pytest.raises(ValueError, match=r"\[N, d\] and keys \[M, d\]"):
        memory_lse(q, k[:, :2], t, x, visibility, 1.0)
    with pytest.raises(ValueError, match="float64"):
        memory_lse(q, k.double(), t, x, visibility, 1.0)
    with pytest.raises(ValueError, match="one token per key"):
        memory_lse(q, k, t, x[:2], visibility, 1.0)
    with pytest.raises(ValueError, match="visibility has 2 rows for 3"):
        memory_lse(k, k, x, x, visibility, 1.0)
    with pytest.raises(ValueError, match="do not divide"):
        part = Visibility(torch.tensor([0]), torch.tensor([1]), repeats=2)
        memory_lse(q, k, t, x, part, 1.0)


@pytest.mark.parametrize("impl", ["naive", "chunked"])
@pytest.mark.parametrize("key_grad", [(0, 0), (3, 9), (0, 14), (13, 14)])
def test_gradient_for_a_range_of_keys(impl, key_grad):
    """The chosen keys get the gradient they always had, the others none; queries are not touched by it."""
    problem, _ = random_problem(3, 1, 12, 14, 4, 3)
    grads = []
    for chosen in (None, key_grad):
        tensors = [problem[name].clone().requires_grad_() for name in ("queries", "keys")]
        inputs = {**problem, "queries": tensors[0], "keys": tensors[1]}
        found = memory_lse(**inputs, key_grad=chosen, impl=impl, tile=(5, 4))
        sum(part[part.isfinite()].sum() for part in found).backward()
        grads.append([tensor.grad for tensor in tensors])
    inside = torch.zeros(14, 1, dtype=torch.float64)
    inside[slice(*key_grad)] = 1
    torch.testing.assert_close(grads[1][0], grads[0][0])
    torch.testing.assert_close(grads[1][1], grads[0][1] * inside)
    assert grads[0][1].abs().sum() > 0


def test_refuses_a_range_of_keys_that_is_none():
    problem, _ = random_problem(3, 1, 4, 5, 4, 3)
    for key_grad in [(0, 6), (-1, 2), (3, 2)]:
        with pytest.raises(ValueError, match="key_grad"):
            memory_lse(**problem, key_grad=key_grad)
    problem, _ = random_problem(3, 2, 4, 5, 4, 3)
    with pytest.raises(ValueError, match="key_grad"):
        memory_lse(**problem, key_grad=(0, 2))
