"""The distribution and its token terms against definitions by explicit loops."""

import math

import pytest
import torch
from fairseq.modules import AdaptiveSoftmax
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracle
from tests.commands import HALVES
from trime_fairseq.memory import (
    LongTermMemory,
    adaptive_token_scores,
    linear_token_scores,
    memory_mass,
    plain_token_scores,
    positive_share,
    similarity_scale,
    token_scores,
    token_softmax,
    trime_log_prob,
)

rows = st.lists(st.floats(-30, 30), min_size=2, max_size=6)


@pytest.mark.parametrize(("dimension", "temperature", "expected"), [(16, 1.0, 0.25), (64, 2.0, 0.0625)])
def test_similarity_scale(dimension, temperature, expected):
    assert similarity_scale(dimension, temperature) == expected


@given(
    logits=rows, scores=st.lists(st.tuples(st.floats(-30, 30), st.integers(0, 5)), max_size=8), data=st.data()
)
@settings(max_examples=200, deadline=None)
def test_probability_is_its_definition_and_sums_to_one(logits, scores, data):
    target = data.draw(st.integers(0, len(logits) - 1))
    scores = [(score, token % len(logits)) for score, token in scores]
    values, tokens = [s for s, _ in scores], [t for _, t in scores]

    def log_prob(word):
        a, b = plain_token_scores(torch.tensor([logits], dtype=torch.float64), torch.tensor([word]))
        every = torch.tensor([oracle.log_add(values)], dtype=torch.float64)
        positive = torch.tensor([oracle.log_add([s for s, t in scores if t == word])], dtype=torch.float64)
        share = positive_share(b, positive).item(), memory_mass(a, every).item()
        return trime_log_prob(a, b, every, positive).item(), share

    found, (share, mass) = log_prob(target)
    expected = oracle.trime_probability(logits, target, values, tokens)
    assert math.exp(found) == pytest.approx(expected, rel=1e-9)
    total = sum(math.exp(log_prob(word)[0]) for word in range(len(logits)))
    assert total == pytest.approx(1.0, rel=1e-9)
    memory = sum(math.exp(s) for s in values)
    assert mass == pytest.approx(memory / (memory + sum(map(math.exp, logits))), rel=1e-9, abs=1e-300)
    match = sum(math.exp(s) for s, t in scores if t == target)
    assert share == pytest.approx(match / (match + math.exp(logits[target])), rel=1e-9, abs=1e-300)


def test_no_memory_is_the_plain_model():
    a, b = torch.tensor([3.0]), torch.tensor([1.0])
    nothing = torch.tensor([-math.inf])
    assert trime_log_prob(a, b, nothing, nothing).item() == -2.0
    assert memory_mass(a, nothing).item() == positive_share(b, nothing).item() == 0.0


@pytest.fixture
def softmax():
    torch.manual_seed(0)
    return AdaptiveSoftmax(60, 8, [10, 30], dropout=0.0, factor=2.0).double()


def test_adaptive_scores_are_head_logsumexp_and_full_log_probability(softmax):
    features = torch.randn(200, 8, dtype=torch.float64)
    target = torch.arange(200) % 60
    a, b = adaptive_token_scores(softmax, features, target)
    torch.testing.assert_close(a, softmax.head(features).logsumexp(1))
    log_probs = softmax.get_log_prob(features.unsqueeze(1), None).squeeze(1)
    torch.testing.assert_close(b - a, log_probs.gather(1, target.unsqueeze(1)).squeeze(1))


def test_uncharged_tail_index_is_what_adaptive_loss_computes(softmax):
    """fairseq's adaptive_loss leaves out the tail term at the padding index of each tail."""
    features, target = torch.randn(60, 8, dtype=torch.float64), torch.arange(60)
    logits, targets = softmax(features, target)
    stock = sum(
        torch.nn.functional.cross_entropy(part, aim, ignore_index=1, reduction="sum")
        for part, aim in zip(logits, targets)
    )
    a, b = adaptive_token_scores(softmax, features, target, uncharged_tail_index=1)
    # Stock leaves out the padding symbol of the head as well; here it is the caller who does.
    assert (a - b)[target != 1].sum().item() == pytest.approx(stock.item())
    charged = adaptive_token_scores(softmax, features, target)[1]
    assert (b != charged).nonzero().squeeze(1).tolist() == [11, 31]


def test_targets_on_the_host_change_nothing(softmax):
    features, target = torch.randn(50, 8, dtype=torch.float64), torch.randint(60, (50,))
    expected = adaptive_token_scores(softmax, features, target)
    found = adaptive_token_scores(softmax, features, target, host_target=target.numpy())
    assert all(torch.equal(*pair) for pair in zip(found, expected))
    # A batch without words of the tails.
    target = target % 10
    found = adaptive_token_scores(softmax, features, target, host_target=target.numpy())
    torch.testing.assert_close(found[0], expected[0])


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("chunk", [1, 40, 10**6])
def test_linear_scores_in_slices_of_the_vocabulary(monkeypatch, chunk, with_bias):
    monkeypatch.setattr(token_scores, "_MOST_KEPT", 0)
    monkeypatch.setattr(token_softmax, "_CHUNK", chunk)
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((7, 3), (19, 3))]
    inputs += [torch.randn(19, dtype=torch.float64, requires_grad=True)] if with_bias else [None]
    target = torch.tensor([0, 18, 3, 3, 7, 11, 5])
    logits = torch.nn.functional.linear(*inputs)
    expected = (logits.logsumexp(1), logits.gather(1, target.unsqueeze(1)).squeeze(1))
    torch.testing.assert_close(linear_token_scores(*inputs, target), expected)
    assert torch.autograd.gradcheck(lambda *inputs: linear_token_scores(*inputs, target), inputs)


@pytest.mark.parametrize("dtype", HALVES)
def test_linear_scores_survive_a_loss_scale_in_half_precision(monkeypatch, dtype):
    """2**17 times a probability overflows float16, where the gradients themselves do not."""
    monkeypatch.setattr(token_scores, "_MOST_KEPT", 0)
    monkeypatch.setattr(token_softmax, "_CHUNK", 64)
    inputs = [(0.01 * torch.randn(*shape)).to(dtype).requires_grad_() for shape in ((9, 4), (30, 4))]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    for features, weight in (inputs, exact):
        a, b = linear_token_scores(features, weight, None, torch.arange(9))
        (2.0**17 * (a - b).sum()).backward()
    for tensor, truth in zip(inputs, exact):
        assert tensor.grad.dtype == dtype
        tolerance = 1e-2 * truth.grad.abs().max().item()
        torch.testing.assert_close(tensor.grad.double(), truth.grad, rtol=0, atol=tolerance)


@pytest.mark.parametrize("chunk", [1, 100, 10**6])
@pytest.mark.parametrize("adaptive", [True, False])
def test_gradients_of_token_scores(monkeypatch, softmax, adaptive, chunk):
    monkeypatch.setattr(token_softmax, "_CHUNK", chunk)
    features = torch.randn(7, 8, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 9, 11, 29, 31, 59, 12])
    projection = torch.randn(8, 60, dtype=torch.float64)

    def scores(features):
        if adaptive:
            return adaptive_token_scores(softmax, features, target, uncharged_tail_index=1)
        return plain_token_scores(features @ projection, target)

    assert torch.autograd.gradcheck(scores, (features,))


def test_half_precision_logits_are_summed_in_float32():
    logits = (4 * torch.randn(50, 3000)).half()
    target = torch.randint(3000, (50,))
    a, b = plain_token_scores(logits, target)
    torch.testing.assert_close(a, logits.float().logsumexp(1))
    assert a.dtype == b.dtype == torch.float32


@given(
    size=st.integers(1, 12),
    steps=st.lists(st.tuples(st.integers(0, 15), st.booleans()), min_size=1, max_size=30),
)
@settings(max_examples=100, deadline=None)
def test_long_term_memory_is_a_list_cut_from_the_front(size, steps):
    memory, expected, value = LongTermMemory(size), [], 0
    for count, gap in steps:
        added = list(range(value, value + count))
        value += count
        memory.append(torch.tensor(added).float().unsqueeze(1).repeat(1, 3), torch.tensor(added))
        before = len(expected) if gap else 0
        expected += added
        assert memory.tokens.tolist() == expected
        memory.forget(before)
        expected = expected[before:][-size:]
        assert memory.tokens.tolist() == expected
        assert memory.keys.shape == (len(memory), 3)
        assert memory.keys[:, 2].tolist() == expected


def test_long_term_memory_is_allocated_once():
    memory = LongTermMemory(100)
    memory.append(torch.zeros(32, 2), torch.zeros(32, dtype=torch.int64))
    # While these views live, no other buffer can lie in their place.
    keys, tokens, size = memory.keys, memory.tokens, memory.nbytes
    for _ in range(50):
        memory.forget()
        memory.append(torch.zeros(32, 2), torch.zeros(32, dtype=torch.int64))
        for now, first in ((memory.keys, keys), (memory.tokens, tokens)):
            assert now.data_ptr() - now.storage_offset() * now.element_size() == first.data_ptr()
    assert memory.nbytes == size == 2 * (100 + 32) * (2 * 4 + 8)
    with pytest.raises(ValueError, match="positive size"):
        LongTermMemory(0)
