"""Every mixture of an evaluation, word by word over a small vocabulary, against float64 arithmetic."""

import math

import numpy as np
import pytest
import torch

from tests.recorded import RecordedModel
from trime_fairseq.datastore import Neighbors
from trime_fairseq.evaluation import MemoryConfig, MemoryScorer, ScorerParts
from trime_fairseq.evaluation.memory_scores import NeighborScores
from trime_fairseq.evaluation.mixture import Distributions, Mixture, weighted

WORDS, DIM, K, TEMP, INTERP_TEMP = 6, 4, 4, 1.3, 2.5
BEFORE, LENGTH, MEM_SIZE = 5, 6, 3  # tokens of the sample before, and of the sample that is scored


def drawn(*shape):
    return torch.randn(*shape)


torch.manual_seed(4)
FIRST_KEYS, KEYS = drawn(1, BEFORE, DIM), drawn(1, LENGTH, DIM)
FIRST_TARGETS, SOURCE = torch.randint(WORDS, (1, BEFORE)), torch.randint(WORDS, (1, LENGTH))
FIRST_LOGITS, LOGITS = drawn(1, BEFORE, WORDS), drawn(1, LENGTH, WORDS)
SCORES = 3 * drawn(LENGTH, K + 1).sort(descending=True).values
VOTES = torch.randint(WORDS, (LENGTH, K + 1))


class Index:
    """Finds so many neighbours of each token."""

    def __init__(self, found):
        columns = torch.arange(K + 1)
        missing = columns >= torch.tensor(found).unsqueeze(1)
        self.scores, self.votes = SCORES.masked_fill(missing, -math.inf), VOTES.masked_fill(missing, -1)

    def search(self, queries):
        size = len(queries)
        return Neighbors(self.scores[:size], self.votes[:size], self.votes[:size])


class Scorer(MemoryScorer):
    """Keeps the last mixture."""

    def _combine(self, *scores):
        self.mixture = super()._combine(*scores)
        return self.mixture


def scored(config, found):
    """Log-probability, mass and share [words, tokens]: each word in turn is the target of all tokens."""
    results = []
    for word in range(WORDS):
        scorer = Scorer(config, pad=1, parts=ScorerParts(retriever=Index(found)))
        for number, logits, keys, source, targets in (
            (0, FIRST_LOGITS, FIRST_KEYS, torch.zeros(1, BEFORE, dtype=torch.int64), FIRST_TARGETS),
            (1, LOGITS, KEYS, SOURCE, torch.full((1, LENGTH), word)),
        ):
            sample = {"net_input": {"src_tokens": source}, "target": targets, "sample_ids": [number]}
            model = RecordedModel(logits, keys, adaptive_softmax=None)
            scorer.generate([model], {**sample, "spans": [(0, targets.size(1))]})
        results.append(scorer.mixture)
    return (torch.stack(values).double().numpy() for values in zip(*results))


def similar(token, keys, words, temperature):
    """Scores and words of a memory."""
    query = KEYS[0, token].double().numpy()
    return [
        (float(query @ key) / math.sqrt(DIM) / temperature, word)
        for key, word in zip(keys.double().numpy(), words)
    ]


def local(token):
    return similar(token, KEYS[0, :token], SOURCE[0, 1 : token + 1].tolist(), TEMP)


def long_term(token):
    return similar(token, FIRST_KEYS[0, -MEM_SIZE:], FIRST_TARGETS[0, -MEM_SIZE:].tolist(), TEMP)


def near(token, found, divisor):
    size = min(K, found[token])
    return [(s / divisor, w) for s, w in zip(SCORES[token, :size].tolist(), VOTES[token, :size].tolist())]


def softmax(memory, logits=()):
    """Probabilities [words, 2] from the tokens and from memory; None of nothing."""
    result = np.zeros((WORDS, 2))
    for word, logit in enumerate(logits):
        result[word, 0] += math.exp(logit)
    for score, word in memory:
        result[word, 1] += math.exp(score)
    return result / result.sum() if result.sum() else None


def mixed(first, *others):
    """``others`` are pairs of weight and distribution; one that is nothing leaves its weight to ``first``."""
    there = [(weight, other) for weight, other in others if other is not None]
    return (1 - sum(weight for weight, _ in there)) * first + sum(weight * other for weight, other in there)


LOCAL = dict(use_local=True, softmax_temp=TEMP)
LONG = dict(**LOCAL, use_long=True, mem_size=MEM_SIZE)
EXTERNAL = dict(use_external=True, k=K)
KNN = dict(knnlm=True, k=K)
IN_SOFTMAX = TEMP * math.sqrt(DIM)
# Flags, and the probabilities [words, 2] of (p_LM's logits, token, neighbours found).
MIXTURES = {
    "lm": (dict(mode="lm", **LONG), lambda b, t, f: softmax([], b)),
    "local": (LOCAL, lambda b, t, f: softmax(local(t), b)),
    "temperature of no flag": (
        dict(use_external=True, k=K),
        lambda b, t, f: softmax(near(t, f, math.sqrt(DIM)), b),
    ),
    "local, long": (LONG, lambda b, t, f: softmax(local(t) + long_term(t), b)),
    "local, long, external": (
        dict(**LONG, **EXTERNAL),
        lambda b, t, f: softmax(local(t) + long_term(t) + near(t, f, IN_SOFTMAX), b),
    ),
    "local, external, interpolated": (
        dict(**LOCAL, **EXTERNAL, use_interp=True, interp_temp=INTERP_TEMP, lmbda=0.3),
        lambda b, t, f: mixed(
            softmax(local(t) + near(t, f, IN_SOFTMAX), b), (0.3, softmax(near(t, f, INTERP_TEMP)))
        ),
    ),
    "cache": (
        dict(mode="li", cache_lmbda=0.2, **LOCAL),
        lambda b, t, f: mixed(softmax([], b), (0.2, softmax(local(t)))),
    ),
    "cache, external": (
        dict(mode="li", cache_lmbda=0.2, **LONG, **EXTERNAL),
        lambda b, t, f: mixed(
            softmax([], b), (0.2, softmax(local(t) + long_term(t) + near(t, f, IN_SOFTMAX)))
        ),
    ),
    "kNN-LM": (
        dict(**KNN, lmbda=0.25, softmax_temp=INTERP_TEMP),
        lambda b, t, f: mixed(softmax([], b), (0.25, softmax(near(t, f, INTERP_TEMP)))),
    ),
    "cache, kNN-LM": (
        dict(mode="li", cache_lmbda=0.2, lmbda=0.25, interp_temp=INTERP_TEMP, **LOCAL, **KNN),
        lambda b, t, f: mixed(
            softmax([], b), (0.2, softmax(local(t))), (0.25, softmax(near(t, f, INTERP_TEMP)))
        ),
    ),
    "long cache, kNN-LM, nothing of the model": (
        dict(mode="li", cache_lmbda=0.7, lmbda=0.3, interp_temp=INTERP_TEMP, **LONG, **KNN),
        lambda b, t, f: mixed(
            softmax([], b),
            (0.7, softmax(local(t) + long_term(t))),
            (0.3, softmax(near(t, f, INTERP_TEMP))),
        ),
    ),
}


# The local memory of the first token is empty: with neighbours, and without any.
@pytest.mark.parametrize("found", [(5, 5, 0, 3, 5, 4), (0, 5, 0, 3, 5, 4)])
@pytest.mark.parametrize("name", MIXTURES)
def test_mixture_word_by_word(name, found):
    flags, formula = MIXTURES[name]
    config = MemoryConfig(**flags)
    if sum(config.weights) < 1:  # flags leave the model some weight
        config.check()
    log_prob, mass, share = scored(config, found)
    expected = [formula(LOGITS[0, token].tolist(), token, found) for token in range(LENGTH)]
    from_tokens, from_memory = np.array(expected).transpose(2, 1, 0)  # [words, tokens] each
    both = from_tokens + from_memory
    np.testing.assert_allclose(np.exp(log_prob), both, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.exp(log_prob).sum(0), 1.0, rtol=1e-5)
    np.testing.assert_allclose(mass, np.broadcast_to(from_memory.sum(0), mass.shape), rtol=1e-5, atol=1e-7)
    # The share of a word without probability is whatever is finite.
    assert np.isfinite(share).all()
    possible = both > 0
    np.testing.assert_allclose(share[possible], (from_memory[possible] / both[possible]), atol=1e-6)


def test_weights_that_leave_nothing_in_double_precision_only():
    """0.9 + 0.1 is 1; in single precision their sum is 1 or a little more or less."""
    log_prob = torch.tensor([-1.0, -1.0])
    first = Mixture(log_prob, torch.zeros(2), torch.zeros(2))
    other = NeighborScores(torch.tensor([-torch.inf, -2.0]), torch.tensor([True, True]))
    for weight in (0.9, 0.1, 0.7, 0.35):
        result = weighted(Distributions(first, (other, other)), (weight, 1 - weight))
        assert result.log_prob[0] == -torch.inf
        assert result.log_prob[1].item() == pytest.approx(-2.0)
        assert result.mass.tolist() == result.share.tolist() == [1.0, 1.0]


def test_each_distribution_needs_its_weight():
    first = Mixture(*torch.zeros(3, 2))
    other = NeighborScores(torch.zeros(2), torch.tensor([True, True]))
    with pytest.raises(ValueError, match="zip"):
        weighted(Distributions(first, (other, other)), (0.5,))
