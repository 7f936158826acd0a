"""Weights that are solved for, against grids."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trime_fairseq.memory import interpolate
from trime_fairseq.tuning import solve_weights

INF = math.inf


def loss(log_probs, weights):
    """Negative log-likelihood in nats, float64, by the function that evaluations mix with."""
    first, *others = (torch.as_tensor(log_prob).double() for log_prob in log_probs)
    everywhere = torch.ones(len(first), dtype=torch.bool)
    mixed = interpolate(first, *((other, weight, everywhere) for other, weight in zip(others, weights)))
    return -mixed.sum().item()


def example(count, seed, tokens=150):
    """Distributions that are good at different tokens; all but the first give nothing to a third of them."""
    generator = torch.Generator().manual_seed(seed)
    spread = 3 + 4 * torch.rand(count, 1, generator=generator)
    log_probs = -torch.rand(count, tokens, generator=generator) * spread
    missing = torch.rand(count, tokens, generator=generator) < 0.3
    missing[0] = False
    return list(log_probs.masked_fill(missing, -INF))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_one_weight_is_that_of_a_fine_grid(seed):
    log_probs = example(2, seed)
    (weight,) = solve_weights(log_probs)
    best = min((number / 1000 for number in range(1001)), key=lambda tried: loss(log_probs, [tried]))
    assert weight == pytest.approx(best, abs=1.01 / 1000)
    assert loss(log_probs, [weight]) <= loss(log_probs, [best]) + 1e-9


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_two_weights_are_those_of_all_pairs(seed):
    log_probs = example(3, seed)
    weights = solve_weights(log_probs)
    assert min(weights) >= 0
    assert sum(weights) <= 1 + 1e-12
    pairs = [(a / 40, b / 40) for a, b in itertools.product(range(41), repeat=2) if a + b <= 40]
    found = loss(log_probs, weights)
    assert found <= min(loss(log_probs, pair) for pair in pairs) + 1e-9
    # Concave: where no small step helps, nothing does.
    for step in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3), (1e-3, -1e-3), (-1e-3, 1e-3)):
        moved = [weight + change for weight, change in zip(weights, step)]
        if min(moved) >= 0 and sum(moved) <= 1:
            assert found <= loss(log_probs, moved) + 1e-9


def test_solutions_on_the_boundary():
    good, bad = torch.full((9,), -1.0), torch.full((9,), -3.0)
    assert solve_weights([good, bad]) == (0.0,)
    assert solve_weights([bad, good]) == (1.0,)
    assert solve_weights([good, good]) == (0.0,)
    assert solve_weights([good, bad, bad]) == (0.0, 0.0)
    assert solve_weights([bad, good, bad]) == (1.0, 0.0)
    assert solve_weights([bad, bad, good]) == (0.0, 1.0)


def test_solutions_on_the_edges_of_the_triangle():
    """One of three distributions is worse than another everywhere: it has no weight, the others have those of
    the two alone."""
    first, second = example(2, seed=5)
    worse = torch.minimum(first, second) - 2
    (alone,) = solve_weights([first, second])
    assert 0.05 < alone < 0.95
    assert solve_weights([first, second, worse]) == pytest.approx((alone, 0.0), abs=1e-9)
    assert solve_weights([first, worse, second]) == pytest.approx((0.0, alone), abs=1e-9)
    assert solve_weights([worse, first, second]) == pytest.approx((1 - alone, alone), abs=1e-9)


def test_probabilities_that_no_float_holds():
    """Ratios of e^2000 in both directions, and a word that none of them can predict."""
    log_probs = [
        torch.tensor([-2000.0, 0.0, 0.0, -INF, -4000.0]),
        torch.tensor([0.0, -2000.0, -INF, -INF, -4000.0]),
    ]
    # One token of three wants the second distribution; the last does not care.
    assert solve_weights(log_probs) == (pytest.approx(1 / 3),)
    third = torch.tensor([-INF, -INF, -3000.0, -INF, -4001.0])
    assert solve_weights([*log_probs, third]) == pytest.approx((1 / 3, 0.0))


def test_fixed_weights_stay():
    log_probs = example(3, seed=1)
    both = solve_weights(log_probs)
    assert min(both) > 0.05
    assert solve_weights(log_probs, (0.2, 0.3)) == (0.2, 0.3)
    assert solve_weights(log_probs[:2], (0.2,)) == (0.2,)
    assert solve_weights(log_probs, (both[0], None)) == pytest.approx(both, abs=1e-6)
    assert solve_weights(log_probs, (None, both[1])) == pytest.approx(both, abs=1e-6)
    for fixed in (0.0, 0.6, 1.0):
        weights = solve_weights(log_probs, (None, fixed))
        best = min(
            (number / 2000 for number in range(2001)), key=lambda a: loss(log_probs, [a * (1 - fixed), fixed])
        )
        assert weights[1] == fixed
        assert weights[0] == pytest.approx(best * (1 - fixed), abs=1.01 / 2000)
    assert solve_weights(log_probs[:1]) == ()


def test_four_distributions_are_too_many():
    with pytest.raises(ValueError, match="4 distributions"):
        solve_weights(example(4, seed=0))
