"""External memory against explicit loops, and the distribution over a whole vocabulary."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracle
from trime_fairseq.memory import (
    Visibility,
    interpolate,
    memory_lse,
    neighbor_lse,
    neighbors,
    plain_token_scores,
    trime_log_prob,
)


def example(queries=7, k=6, types=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(queries, k, generator=generator, dtype=torch.float64).sort(1, descending=True).values
    scores[0, 3:] = -math.inf  # the index found three
    scores[1] = -math.inf  # and nothing at all
    tokens = torch.randint(types, (queries, k), generator=generator).masked_fill(scores == -math.inf, -1)
    return scores, tokens, torch.randint(types, (queries,), generator=generator)


def test_loops():
    scores, tokens, targets = example()
    before = scores.clone()
    every, positive = neighbor_lse(scores, tokens, targets, (0.3, 40.0), (1, 4, 6))
    assert every.shape == positive.shape == (2, 3, 7)
    assert torch.equal(scores, before)
    places = itertools.product(enumerate((0.3, 40.0)), enumerate((1, 4, 6)), range(len(targets)))
    for (number, scale), (position, size), i in places:
        near = [(scale * s, t) for s, t in zip(scores[i, :size].tolist(), tokens[i, :size].tolist())]
        place = (number, position, i)
        assert every[place].item() == pytest.approx(oracle.log_add([s for s, _ in near]))
        hits = [s for s, t in near if t == targets[i].item()]
        assert positive[place].item() == pytest.approx(oracle.log_add(hits))


def test_nothing_is_asked_of_an_accelerator():
    meta = (values.to("meta") for values in example())
    for lse in neighbor_lse(*meta, (0.3, 40.0), (1, 4, 6)):
        assert lse.device.type == "meta"
        assert lse.shape == (2, 3, 7)


def test_gathered_positives_are_those_that_are_not_hidden(monkeypatch):
    """A CPU gathers the positives of many neighbours; of these few it hides the others, see test_loops."""
    hidden = neighbor_lse(*example(), (0.3, 40.0), (1, 4, 6))
    gathered = []
    monkeypatch.setattr(neighbors, "gather_positives", lambda scores: gathered.append(scores) or True)
    for one, two in zip(neighbor_lse(*example(), (0.3, 40.0), (1, 4, 6)), hidden):
        torch.testing.assert_close(one, two)
    assert gathered


def test_neighbours_in_any_order():
    """Recomputed scores may not fall: a far first neighbour must not vanish beside a near second."""
    scores, tokens = torch.tensor([[-500.0, 0.0]]), torch.tensor([[3, 4]])
    every, positive = neighbor_lse(scores, tokens, torch.tensor([3]), (1.0,), (1, 2))
    assert every.flatten().tolist() == [-500.0, 0.0]
    assert positive.flatten().tolist() == [-500.0, -500.0]


def test_interpolation_where_nothing_was_found():
    log_prob = torch.tensor([0.5, 0.5]).log()
    other = torch.tensor([0.1, 0.1]).log()
    result = interpolate(log_prob, (other, 0.25, torch.tensor([True, False]))).exp()
    assert result.tolist() == pytest.approx([0.75 * 0.5 + 0.25 * 0.1, 0.5])


def test_interpolation_broadcasts():
    """[temperatures, 1, N] with [ks, N], which exist or not for each token alike."""
    log_prob, other = torch.rand(3, 1, 5).log(), torch.rand(2, 5).log()
    exists = torch.tensor([True, False, True, True, False])
    other[0, 1] = math.nan
    result = interpolate(log_prob, (other, 0.25, exists))
    assert result.shape == (3, 2, 5)
    for t in range(3):
        for k in range(2):
            assert torch.equal(result[t, k], interpolate(log_prob[t, 0], (other[k], 0.25, exists)))
    all_other = interpolate(other[:, :1], (log_prob, 1.0, exists[:1]))
    torch.testing.assert_close(all_other, log_prob.expand(3, 2, 5))


@settings(max_examples=40, deadline=None)
@given(
    types=st.integers(2, 9),
    count=st.integers(1, 6),
    k=st.integers(1, 12),
    temperature=st.floats(0.3, 20),
    weight=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
def test_sums_to_one_over_the_vocabulary(types, count, k, temperature, weight, seed):
    """Local, long-term and external memory and the interpolation, all at once."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    queries, keys, logits, scores = draw(count, 5), draw(count + 3, 5), draw(count, types), 9 * draw(count, k)
    key_tokens = torch.randint(types, (count + 3,), generator=generator)
    tokens = torch.randint(types, (count, k), generator=generator)
    scores[0] = -math.inf
    scale = 5**-0.5 / temperature
    seen = Visibility.shared(((0, count + 3, count),))
    total = torch.zeros(count, dtype=torch.float64)
    for word in range(types):
        target = torch.full((count,), word)
        pair = memory_lse(queries, keys, target, key_tokens, seen, scale)
        ((external,),), ((hits,),) = neighbor_lse(scores, tokens, target, (scale,), (k,))
        joint = trime_log_prob(
            *plain_token_scores(logits, target),
            torch.logaddexp(pair[0], external),
            torch.logaddexp(pair[1], hits),
        )
        ((among,),), ((found,),) = neighbor_lse(scores, tokens, target, (1 / temperature,), (k,))
        exists = among > -math.inf
        total += interpolate(joint, (found - among, weight, exists)).exp()
    assert total.tolist() == pytest.approx([1.0] * count, abs=1e-9)
