"""The losses of a grid, and their sums, against loops."""

import math
from dataclasses import replace

import pytest
import torch

from tests.recorded import RecordedModel
from trime_fairseq.datastore.retriever import Neighbors
from trime_fairseq.evaluation import ScorerParts
from trime_fairseq.evaluation.memory_scores import EvaluatedBatch, PrecedingText
from trime_fairseq.tuning import Axes, GridScorer
from trime_fairseq.tuning.report import ranked

from .grids import CASES, EXTERNAL, NONE, TEMPS

LENGTHS = [3, 4]  # evaluated tokens of the two rows of a batch
TOKENS, DIM, NEIGHBORS = sum(LENGTHS), 4, 5


def neighbors():
    """Of tokens 0 and 4 none, of token 2 only three; the first two of token 1 tie, one is positive."""
    torch.manual_seed(1)
    scores = torch.randn(TOKENS, NEIGHBORS).sort(descending=True).values
    tokens = torch.randint(0, 3, (TOKENS, NEIGHBORS))
    for row, found in ((0, 0), (4, 0), (2, 3)):
        scores[row, found:], tokens[row, found:] = -math.inf, -1
    scores[1, 1] = scores[1, 0]
    tokens[1, :2] = torch.tensor([0, 1])
    return Neighbors(scores, tokens, tokens)


def batch_of(queries, targets, ids=(0, 1)):
    """Of which every position is evaluated."""
    spans = [(0, count) for count in LENGTHS]
    return EvaluatedBatch(torch.zeros(2, 4), ids, spans, queries, queries, targets)


class Found:
    """A retriever that finds the same neighbours each time."""

    def search(self, queries):
        assert queries.shape == (TOKENS, DIM)
        return neighbors()


def summed(axes, settings, at_once=0, skip_bos=False, batches=1):
    """What a scorer sums over batches: the grid, and its settings' own total."""
    torch.manual_seed(2)
    logits, keys = torch.randn(2, 4, 6), torch.randn(2, 4, DIM)
    targets = torch.tensor([[0, 1, 2, 1], [0, 1, 2, 0]])
    model = RecordedModel(logits, keys, adaptive_softmax=None)
    scorer = GridScorer(
        axes, settings, pad=1, parts=ScorerParts(skip_bos, retriever=Found()), at_once=at_once
    )
    sample = {"net_input": {"src_tokens": torch.zeros(2, 4)}, "target": targets, "sample_ids": (0, 1)}
    for _ in range(batches):
        scorer.generate([model], {**sample, "spans": [(0, count) for count in LENGTHS]})
    evaluated = torch.cat([torch.arange(row * 4, row * 4 + count) for row, count in enumerate(LENGTHS)])
    logits, targets = logits.view(8, 6)[evaluated], targets.view(8)[evaluated]
    of_tokens = (logits.logsumexp(1), logits.gather(1, targets[:, None]).squeeze(1), targets)
    return scorer.nll(), scorer.totals.finish(), tuple(values.tolist() for values in of_tokens)


def by_loops(axes, tokens, token_lse, target_logit, targets, knnlm=False):
    """Negative log-likelihoods of the grid in Python floats, from probabilities."""
    scores, values, _ = (x.tolist() for x in neighbors())
    result = []
    for point in axes.points():
        nll = 0.0
        for i in tokens:
            found = [(s, v) for s, v in zip(scores[i][: point["k"]], values[i]) if v >= 0]
            weights = (0.0, 0.0)
            if not knnlm:
                scaled = [(math.exp(s / DIM**0.5 / point["softmax_temp"]), v) for s, v in found]
                weights = tuple(sum(e for e, v in scaled if v in w) for w in ({0, 1, 2}, {targets[i]}))
            p = (math.exp(target_logit[i]) + weights[1]) / (math.exp(token_lse[i]) + weights[0])
            if found and "lmbda" in point:
                temperature = point["softmax_temp"] if knnlm else point["interp_temp"]
                alone = [(math.exp(s / temperature), v) for s, v in found]
                q = sum(e for e, v in alone if v == targets[i]) / sum(e for e, _ in alone)
                p = (1 - point["lmbda"]) * p + point["lmbda"] * q
            nll -= math.log(p)
        result.append(nll)
    return torch.tensor(result, dtype=torch.float64).view(axes.shape)


@pytest.mark.parametrize("at_once", [0, 40])
@pytest.mark.parametrize("skip_bos", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_sums_of_a_grid_by_loops(case, skip_bos, at_once):
    axes, settings = CASES[case]
    nll, own, scores = summed(axes, settings, at_once, skip_bos)
    tokens = [i for i in range(TOKENS) if not skip_bos or i not in (0, LENGTHS[0])]
    expected = by_loops(axes, tokens, *scores, knnlm=settings.knnlm)
    assert nll.shape == axes.shape
    assert nll.dtype == torch.float64
    torch.testing.assert_close(nll, expected, rtol=1e-6, atol=0)
    # What fairseq reports is the point of the settings.
    assert own.tokens == len(tokens)
    assert own.nll_nats == pytest.approx(expected[axes.position(settings)].item(), rel=1e-6)


def test_batches_add_up():
    axes, settings = CASES["interpolated"]
    once, thrice = (summed(axes, settings, batches=count)[0] for count in (1, 3))
    torch.testing.assert_close(thrice, 3 * once)


def test_a_target_without_probability_is_the_loss_of_its_points_only():
    axes = Axes((1.3,), NONE, (5,), (0.5,), (0.6, 1.0))
    settings = replace(EXTERNAL, use_interp=True, interp_temp=0.5, lmbda=0.6)
    points = ranked(axes, summed(axes, settings)[0], TOKENS)
    assert [point["lmbda"] for point in points] == [0.6, 1.0]
    assert points[0]["ppl"] < points[1]["ppl"] == math.inf


def test_a_memory_of_size_0_says_nothing_and_leaves_the_others_as_they_are():
    torch.manual_seed(3)
    grid, single = PrecedingText((0, 4)), PrecedingText((4,))
    for ids in ([0, 1], [2, 3]):
        queries, targets = torch.randn(TOKENS, DIM), torch.randint(0, 3, (TOKENS,))
        batch = batch_of(queries, targets, ids)
        found, expected = grid.read_and_add(batch, TEMPS), single.read_and_add(batch, TEMPS)
        for both, alone in zip(found, expected):
            assert both.shape == (len(TEMPS), 2, 1, TOKENS)
            assert torch.isneginf(both[:, 0]).all()
            torch.testing.assert_close(both[:, 1:], alone)
    assert torch.isfinite(expected.all_lse).all()


def test_settings_off_the_grid_are_refused():
    with pytest.raises(ValueError, match=r"--k 7 is not in the grid"):
        GridScorer(CASES["joint"][0], replace(EXTERNAL, k=7), pad=1)
