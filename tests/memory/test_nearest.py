"""nearest_lse against explicit loops, finite differences and its own variations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracle
from tests.commands import HALF_ON_CPU
from tests.memory.test_lse import DEVICES, on, random_problem
from trime_fairseq.memory import Visibility, memory_lse, nearest_keys, nearest_lse, trime_log_prob

METRICS = ["ip", "l2"]


def sentences(lengths, width=8, types=4, dtype=torch.float64, seed=1):
    """The problem of trime_mt_loss: queries are keys, and see all other sentences."""
    torch.manual_seed(seed)
    count, ends = sum(lengths), torch.tensor(lengths).cumsum(0).tolist()
    vectors, tokens = torch.randn(count, width).to(dtype), torch.randint(0, types, (count,))
    intervals = [(end - length, end, length) for end, length in zip(ends, lengths)]
    return {
        "queries": vectors,
        "keys": vectors.clone(),
        "query_targets": tokens,
        "key_tokens": tokens,
        "visibility": Visibility.all_but(intervals, count),
        "scale": 0.3,
    }


def both_gradients(problem, **arguments):
    """Both log-sum-exps, and the gradients in queries and keys of a loss of them."""
    tensors = [problem[name].detach().clone().requires_grad_() for name in ("queries", "keys")]
    lses = nearest_lse(**{**problem, "queries": tensors[0], "keys": tensors[1]}, **arguments)
    zeros = torch.zeros_like(lses[0])
    trime_log_prob(zeros, zeros - 3, *lses).sum().backward()
    return *(lse.detach() for lse in lses), *(tensor.grad for tensor in tensors)


@given(
    seed=st.integers(0, 10**6),
    parts=st.integers(1, 3),
    queries=st.integers(1, 12),
    keys=st.integers(1, 14),
    width=st.integers(1, 5),
    types=st.integers(1, 4),
    tile=st.sampled_from([(1, 1), (2, 3), (5, 4), (64, 64)]),
    spread=st.sampled_from([0.0, 1.0, 20.0]),
    topk=st.sampled_from([1, 2, 3, 8, 100, None]),
    metric=st.sampled_from(METRICS),
)
@settings(max_examples=120, deadline=None)
def test_equals_explicit_loops(seed, parts, queries, keys, width, types, tile, spread, topk, metric):
    problem, sees = random_problem(seed, parts, queries, keys, width, types, spread=spread)
    lists = [problem[k].tolist() for k in ("queries", "keys", "query_targets", "key_tokens")]
    found = nearest_lse(**problem, topk=topk, metric=metric, tile=tile)
    if spread:
        expected = oracle.nearest_lse(*lists, sees, problem["scale"], topk, metric)
        for ours, truth in zip(found, expected):
            torch.testing.assert_close(ours, torch.tensor(truth, dtype=torch.float64))
        return
    # All are equal: any may be chosen.
    for i, every in enumerate(found[0].tolist()):
        visible = [j for j in range(parts * keys) if sees(i, j)]
        chosen = len(visible) if topk is None else min(topk, len(visible))
        assert every == pytest.approx(math.log(chosen) if chosen else -math.inf)
        positive = sum(lists[3][j] == lists[2][i] for j in visible)
        counts = [math.exp(found[1][i].item())] if found[1][i].isfinite() else [0.0]
        assert max(0, chosen + positive - len(visible)) - 1e-9 <= counts[0] <= min(chosen, positive) + 1e-9


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("topk", [1, 3, 20, None])
@pytest.mark.parametrize("seed", range(3))
def test_gradcheck(seed, topk, metric):
    problem, _ = random_problem(seed, parts=2, queries=5, keys=6, width=3, types=2)
    token_lse, target_logit = torch.randn(2, 10, dtype=torch.float64)

    # Through the objective: rows without memory or without positive must keep finite gradients.
    def loss(queries, keys):
        inputs = {**problem, "queries": queries, "keys": keys}
        lse = nearest_lse(**inputs, topk=topk, metric=metric, tile=(2, 4))
        return trime_log_prob(token_lse, target_logit, *lse)

    inputs = problem["queries"].requires_grad_(), problem["keys"].requires_grad_()
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_of_vectors_that_are_query_and_key(metric):
    """As in training: both gradients reach the same tensor."""
    problem = sentences((4, 2, 5), width=3)

    def loss(vectors):
        inputs = {**problem, "queries": vectors, "keys": vectors}
        return trime_log_prob(
            *torch.zeros(2, 11, dtype=torch.float64), *nearest_lse(**inputs, topk=3, metric=metric)
        )

    assert torch.autograd.gradcheck(loss, (problem["queries"].requires_grad_(),))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("topk", [3, None])
@pytest.mark.parametrize("key_grad", [(0, 0), (3, 9), (0, 14), (13, 14)])
def test_gradient_for_a_range_of_keys(key_grad, topk, metric):
    """The chosen keys get the gradient they always had, the others none; queries are not touched by it."""
    problem, _ = random_problem(3, 1, 12, 14, 4, 3)
    every = both_gradients(problem, topk=topk, metric=metric)
    some = both_gradients(problem, topk=topk, metric=metric, key_grad=key_grad)
    inside = torch.zeros(14, 1, dtype=torch.float64)
    inside[slice(*key_grad)] = 1
    torch.testing.assert_close(some[2], every[2])
    torch.testing.assert_close(some[3], every[3] * inside)
    assert every[3].abs().sum() > 0


@pytest.mark.parametrize("topk", [8, None])
@pytest.mark.parametrize("metric", METRICS)
def test_few_and_no_visible_keys(metric, topk):
    """A long sentence sees the three tokens of a short one; alone it sees nothing."""
    problem = sentences((14, 3))
    every, _, *gradients = both_gradients(problem, topk=topk, metric=metric)
    torch.testing.assert_close(every[:14], both_gradients(problem, topk=3, metric=metric)[0][:14])
    assert all(grad.isfinite().all() and grad.ne(0).any() for grad in gradients)
    alone = both_gradients(sentences((9,)), topk=topk, metric=metric)
    assert all(lse.eq(-math.inf).all() for lse in alone[:2])
    assert all(grad.eq(0).all() for grad in alone[2:])


@pytest.mark.parametrize("topk", [8, None])
@pytest.mark.parametrize("metric", METRICS)
def test_no_keys_and_no_queries(metric, topk):
    nothing = torch.zeros(0, dtype=torch.int64)
    blind = Visibility(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    problem = dict(queries=torch.randn(2, 3), keys=torch.randn(0, 3), query_targets=torch.tensor([1, 2]))
    problem.update(key_tokens=nothing, visibility=blind, scale=1.0)
    every, positive, *gradients = both_gradients(problem, topk=topk, metric=metric)
    assert every.tolist() == positive.tolist() == [-math.inf, -math.inf]
    assert [tuple(grad.shape) for grad in gradients] == [(2, 3), (0, 3)]
    assert not gradients[0].any()
    # A rank without sentences, whose keys are those of others.
    problem = dict(queries=torch.randn(0, 3), keys=torch.randn(4, 3), query_targets=nothing)
    problem.update(key_tokens=torch.arange(4), visibility=Visibility.all_but([], 4), scale=1.0)
    every, _, *gradients = both_gradients(problem, topk=topk, metric=metric, key_grad=(2, 2))
    assert every.shape == (0,)
    assert [tuple(grad.shape) for grad in gradients] == [(0, 3), (4, 3)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block", [0, 1, 7, 30, 200])
@pytest.mark.parametrize("lengths", [(60, 3, 45, 20), (1,) * 30, (4, 90, 2), (50,)])
def test_queries_that_are_the_keys(lengths, block, metric, device, monkeypatch):
    """Each product is computed once, and serves both of its vectors."""
    problem = on(device, sentences(lengths))
    general = both_gradients(problem, topk=5, metric=metric)
    vectors, products = problem["queries"].requires_grad_(), []
    similarities = nearest_keys.similarities
    monkeypatch.setattr(
        nearest_keys,
        "similarities",
        lambda one, two, scale: products.append(one.size(1) * two.size(1)) or similarities(one, two, scale),
    )
    problem.update(queries=vectors, keys=vectors)
    lses = nearest_lse(**problem, topk=5, metric=metric, tile=(block, 0))
    zeros = torch.zeros_like(lses[0])
    trime_log_prob(zeros, zeros - 3, *lses).sum().backward()
    for one, two in zip((*lses, vectors.grad), (*general[:2], general[2] + general[3])):
        torch.testing.assert_close(one, two)
    count = sum(lengths)
    assert sum(products) < count * (count + 2 * max(block, 1)) / 2 or not 0 < block < count


def test_queries_that_are_the_keys_but_see_more():
    """As in another criterion: what i sees need not see i."""
    vectors, tokens = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 3
    end = torch.arange(9)
    lists = [vectors.tolist(), vectors.tolist(), tokens.tolist(), tokens.tolist()]
    for visibility, sees in [
        (Visibility(torch.zeros_like(end), end), lambda i, j: j < i),
        (Visibility.all_but([(0, 0, 9)], 9), lambda i, j: True),
        (Visibility.all_but([(2, 4, 9)], 9), lambda i, j: not 2 <= j < 4),
    ]:
        found = nearest_lse(vectors, vectors, tokens, tokens, visibility, 0.5, topk=3)
        for ours, truth in zip(found, oracle.nearest_lse(*lists, sees, 0.5, 3, "ip")):
            torch.testing.assert_close(ours, torch.tensor(truth, dtype=torch.float64))


def test_a_tie_at_the_border_is_one_of_the_equal_keys():
    keys = torch.tensor([[2.0], [1.0], [1.0], [0.0]])
    problem = dict(queries=torch.ones(1, 1), keys=keys, query_targets=torch.tensor([5]), scale=1.0)
    problem.update(key_tokens=torch.tensor([0, 5, 0, 5]), visibility=Visibility.all_but([(0, 0, 1)], 4))
    for tile in [(1, 1), (1, 2), (1, 4)]:
        every, positive = nearest_lse(**problem, topk=2, tile=tile)
        assert every.item() == pytest.approx(math.log(math.exp(2) + math.exp(1)))
        assert positive.item() in (1.0, -math.inf)


def test_all_keys_are_those_of_memory_lse():
    problem, _ = random_problem(4, 1, 30, 40, 6, 3)
    expected = memory_lse(**problem)
    for topk in (None, 40, 50):
        for one, two in zip(expected, nearest_lse(**problem, topk=topk)):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("lengths", [(60, 3, 45, 90, 70), (7,) * 80, (500, 1, 500)])
def test_tile_size_does_not_matter(device, lengths, metric):
    problem = on(device, sentences(lengths, width=16, dtype=torch.float32))
    results = [
        both_gradients(problem, topk=5, metric=metric, tile=tile)
        for tile in [(0, 0), (33, 71), (500, 9), (1, 2000), (2000, 3)]
    ]
    for other in results[1:]:
        for one, two in zip(results[0], other):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("topk", [8, None])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_from_the_similarities_on(device, dtype, topk, metric):
    if dtype == torch.float16 and device == "cpu" and not HALF_ON_CPU:
        pytest.skip("float16 arithmetic on the CPU needs PyTorch 2.2")
    problem = on(device, sentences((40, 25, 60), width=32, dtype=dtype))
    exact = {**problem, "queries": problem["queries"].float(), "keys": problem["keys"].float()}
    ours, truth = (both_gradients(given, topk=topk, metric=metric) for given in (problem, exact))
    assert ours[0].dtype == ours[1].dtype == torch.float32
    for one, two in zip(truth[:2], ours[:2]):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    # Gradients come back in half precision: one rounding away from the truth.
    for one, two in zip(truth[2:], ours[2:]):
        assert two.dtype == dtype
        rounding = torch.finfo(dtype).eps
        torch.testing.assert_close(one, two.float(), rtol=rounding, atol=rounding * one.abs().max().item())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("topk", [8, None])
def test_autocast_does_not_round(topk, metric):
    problem = sentences((20, 12, 9), dtype=torch.float32)
    expected = both_gradients(problem, topk=topk, metric=metric)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = both_gradients(problem, topk=topk, metric=metric)
    assert all(torch.equal(one, two) for one, two in zip(expected, found))


def test_a_strong_match_far_below_the_largest_is_not_lost():
    """exp(P - A) underflows in float32 here; the positive must still be found."""
    problem = dict(queries=torch.ones(1, 1), keys=torch.tensor([[300.0], [-300.0], [-301.0]]), scale=1.0)
    problem.update(query_targets=torch.tensor([1]), key_tokens=torch.tensor([0, 1, 1]))
    visibility = Visibility.all_but([(0, 0, 1)], 3)
    every, positive = nearest_lse(**problem, visibility=visibility, topk=2)
    assert (every.item(), positive.item()) == (300.0, -300.0)


@pytest.mark.parametrize("metric", METRICS)
def test_no_matrix_outlives_its_chunk(metric, monkeypatch):
    """Backward is given the chosen pairs alone, and looks at no tile of similarities again."""
    problem, kept, tiles = sentences((50,) * 8, dtype=torch.float32), [], []
    vectors = problem["queries"].requires_grad_()
    hide = Visibility.hide
    monkeypatch.setattr(
        Visibility, "hide", lambda self, tile, *place: tiles.append(tile.numel()) or hide(self, tile, *place)
    )
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        lses = nearest_lse(
            **{**problem, "queries": vectors, "keys": vectors}, topk=6, metric=metric, tile=(64, 128)
        )
        loss = -trime_log_prob(torch.zeros(400), torch.zeros(400), *lses).sum()
    assert max(kept) == max(vectors.numel(), 400 * 6)
    assert max(tiles) <= 64 * 128
    forward = len(tiles)
    loss.backward()
    assert len(tiles) == forward > 0


def test_runs_are_filled_as_masks_are(monkeypatch):
    """On a CPU intervals are filled; the mask of a tile says the same."""
    problem = sentences((30, 1, 64, 17))
    visibility = Visibility.all_but([(0, 30, 30), (30, 31, 1), (31, 95, 64), (95, 112, 17)], 112)
    for queries, keys in [(slice(0, 112), slice(0, 112)), (slice(20, 60), slice(25, 90))]:
        tile = torch.zeros(1, queries.stop - queries.start, keys.stop - keys.start)
        visibility.hide(tile, queries, keys)
        assert torch.equal(tile[0] == -math.inf, visibility.hidden(queries, keys, tile.device))
    assert torch.equal(
        visibility.dense(112, torch.device("cpu")), problem["visibility"].dense(112, torch.device("cpu"))
    )
    monkeypatch.setattr(Visibility, "hidden", None)
    nearest_lse(**sentences((200, 100)), topk=3)


def test_refusals():
    problem = sentences((3, 4))
    with pytest.raises(ValueError, match="unknown metric 'cos': one of ip, l2"):
        nearest_lse(**problem, metric="cos")
    with pytest.raises(ValueError, match="`topk` must be positive, not 0"):
        nearest_lse(**problem, topk=0)
    with pytest.raises(ValueError, match="one token per key"):
        nearest_lse(**{**problem, "key_tokens": problem["key_tokens"][:2]}, topk=3)
