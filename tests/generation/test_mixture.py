"""Neighbours and logits as one distribution, against explicit loops in double precision."""

import math

import pytest
import torch

from tests.commands import HALVES
from trime_fairseq.generation.mixture import LAMBDA_TYPES, Mixture

DIMENSION, TEMPERATURE, WEIGHT = 16, 3.0, 0.3


def mixture(kind, temperature=TEMPERATURE):
    return Mixture.create(kind, temperature, DIMENSION, WEIGHT if kind == "fix" else None)


def oracle(kind, logits, scores, tokens, temperature=TEMPERATURE, divided_by=1.0):
    """Probabilities of one row, from lists of Python's numbers, by the formulas as they stand."""
    vocabulary = len(logits)
    undivided = [value * divided_by for value in logits]
    top = max(logits)
    net = [math.exp(value - top) for value in logits]
    net = [value / sum(net) for value in net]
    found = [(score, token) for score, token in zip(scores, tokens) if token >= 0]
    if not found:
        return net
    divisor = temperature if kind == "fix" else temperature * math.sqrt(DIMENSION)
    shares = [math.exp(score / divisor) for score, _ in found]
    memory = [0.0] * vocabulary
    for share, (_, token) in zip(shares, found):
        memory[token] += share / sum(shares)
    of_memory = sum(shares) / (sum(shares) + sum(math.exp(value) for value in undivided))
    if kind == "fix":
        weights = 1 - WEIGHT, WEIGHT
    elif kind == "trime":
        weights = 1 - of_memory, of_memory
    elif kind == "trime-published":
        weights = 1 - of_memory, 1.0
    else:
        weights = (1 - of_memory) / (2 - of_memory), 1 / (2 - of_memory)
    return [weights[0] * a + weights[1] * b for a, b in zip(net, memory)]


def problem(rows=6, vocabulary=11, k=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=generator) * 3
    scores = torch.randn(rows, k, generator=generator) * 20
    # Few tokens, so that neighbours share them.
    tokens = torch.randint(0, 4, (rows, k), generator=generator)
    return logits, scores, tokens


def with_missing(scores, tokens):
    """Faiss found fewer in three rows, in one nothing at all, in another one the first of its row."""
    scores, tokens = scores.clone(), tokens.clone()
    for row, found in ((0, 3), (2, 0), (4, 1)):
        scores[row, found:], tokens[row, found:] = -torch.inf, -1
    scores[5, 0], tokens[5, 0] = -torch.inf, -1
    return scores, tokens


def expected(kind, logits, scores, tokens, **options):
    rows = zip(*(tensor.double().tolist() for tensor in (logits, scores)), tokens.tolist())
    return torch.tensor([oracle(kind, *row, **options) for row in rows], dtype=torch.float64)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", LAMBDA_TYPES)
def test_against_explicit_loops(kind, missing):
    logits, scores, tokens = problem()
    if missing:
        scores, tokens = with_missing(scores, tokens)
    found = mixture(kind).log_probs(logits, scores, tokens)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double().exp(), expected(kind, logits, scores, tokens), rtol=2e-6, atol=1e-9
    )


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", ["trime", "trime-normalized", "fix"])
@pytest.mark.parametrize("temperature", [1e-3, 0.5, 100.0])
def test_sums_to_one(kind, missing, temperature):
    logits, scores, tokens = problem(rows=40, vocabulary=300, k=16)
    if missing:
        scores, tokens = with_missing(scores, tokens)
    total = mixture(kind, temperature).log_probs(logits, scores, tokens).double().exp().sum(1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-5, atol=0)


@pytest.mark.parametrize("temperature", [0.5, 3.0, 100.0])
def test_published_sums_to_two_minus_lambda(temperature):
    logits, scores, tokens = problem(rows=40, vocabulary=300, k=16)
    found = mixture("trime-published", temperature).log_probs(logits, scores, tokens)
    memory = (scores.double() / (temperature * math.sqrt(DIMENSION))).logsumexp(1)
    share = torch.sigmoid(memory - logits.double().logsumexp(1))
    torch.testing.assert_close(found.double().exp().sum(1), 2 - share, rtol=1e-5, atol=0)


def test_published_probability_may_exceed_one():
    """Where model and neighbours agree: the neighbours' share is whole."""
    logits, scores = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    found = mixture("trime-published").log_probs(logits, scores, torch.tensor([[0, 0]]))
    assert found[0, 0] == pytest.approx(math.log(2), abs=1e-3)


def test_normalised_is_the_published_one_moved():
    """The same ranking in each row, and the same differences."""
    inputs = problem()
    published, normalised = (
        mixture(f"trime-{name}").log_probs(*inputs) for name in ("published", "normalized")
    )
    moved = published - normalised
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), rtol=0, atol=1e-5)
    assert (moved > 0).all()


def test_trime_is_one_softmax_over_tokens_and_neighbours():
    """The distribution of training: exp(l_v) + sum of exp(s_j), normalised."""
    logits, scores, tokens = problem()
    scaled = scores.double() / (TEMPERATURE * math.sqrt(DIMENSION))
    masses = logits.double().exp().scatter_add(1, tokens, scaled.exp())
    torch.testing.assert_close(
        mixture("trime").log_probs(logits, scores, tokens).double(),
        (masses / masses.sum(1, keepdim=True)).log(),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("kind", LAMBDA_TYPES)
def test_temperature_of_sampling_sharpens_the_model_alone(kind):
    logits, scores, tokens = problem()
    divided = logits / 0.5
    found = mixture(kind).log_probs(divided, scores, tokens, divided_by=0.5)
    torch.testing.assert_close(
        found.double().exp(),
        expected(kind, divided, scores, tokens, divided_by=0.5),
        rtol=2e-6,
        atol=1e-9,
    )


@pytest.mark.parametrize("kind", LAMBDA_TYPES)
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_that_of_the_logits_only(kind, dtype):
    logits, scores, tokens = problem()
    logits = logits.to(dtype)
    half, whole = (mixture(kind).log_probs(given, scores, tokens) for given in (logits, logits.float()))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", LAMBDA_TYPES)
def test_far_tokens_keep_their_probability(kind):
    """Log space: where the probabilities themselves are no numbers of float32 any more."""
    logits = torch.tensor([[0.0, -500.0, -900.0, -2000.0]])
    scores, tokens = torch.tensor([[0.0, -6000.0, -6000.0]]), torch.tensor([[0, 1, 3]])
    found = mixture(kind).log_probs(logits, scores, tokens)
    assert found.isfinite().all()
    assert found[0, 2] == pytest.approx(-900, abs=2)
    # As a neighbour it is likelier than as a token of the model.
    scale = mixture(kind).scale
    assert found[0, 3] == pytest.approx(-6000 * scale, abs=2)
    assert found[0, 1] == pytest.approx(max(-500, -6000 * scale), abs=2)


@pytest.mark.parametrize("kind", LAMBDA_TYPES)
def test_large_scores_are_compared_by_their_differences(kind):
    """Squared distances of thousands at a low temperature."""
    logits, scores, tokens = problem()
    near = mixture(kind, 0.1).log_probs(logits, scores - 4096, tokens)
    if kind == "fix":
        far = mixture(kind, 0.1).log_probs(logits, scores - 8192, tokens)
        torch.testing.assert_close(near, far, rtol=0, atol=0.05)
    assert near.isfinite().all()


@pytest.mark.skipif(torch.__version__ < "2", reason="needs PyTorch 2")
def test_no_tensor_of_neighbours_times_vocabulary():
    """Rows x vocabulary, a few times; with 64 neighbours, not 64 times."""
    logits, scores, tokens = problem(rows=8, vocabulary=5000, k=64)
    largest = 0

    class Watching(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            nonlocal largest
            result = function(*arguments, **(options or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    with Watching():
        mixture("trime").log_probs(logits, scores, tokens)
    assert largest == logits.numel()


@pytest.mark.parametrize(
    ("kind", "weight", "message"),
    [
        ("trainable", None, "knn_lambda_type"),
        ("fix", None, "knn_lambda_value"),
        ("fix", 1.0, "knn_lambda_value"),
        ("fix", math.nan, "knn_lambda_value"),
    ],
)
def test_refused(kind, weight, message):
    with pytest.raises(ValueError, match=message):
        Mixture.create(kind, 1.0, DIMENSION, weight)
