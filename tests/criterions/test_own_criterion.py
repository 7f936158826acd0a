"""A criterion of one's own, from public names alone."""

import math

import pytest
import torch
from fairseq.criterions import register_criterion

from tests import oracle
from tests.criterions.test_base import sample_of
from tests.recorded import make_criterion
from tests.small_models import build
from trime_fairseq.criterions import Memory, TrimeCriterion, TrimeCriterionConfig
from trime_fairseq.memory import Visibility
from trime_fairseq.models import RepresentationTap


@register_criterion("recent_loss", dataclass=TrimeCriterionConfig)
class RecentLoss(TrimeCriterion):
    """A token sees the last three tokens of its segment."""

    def memory(self, representation, target, sample):
        segments, length, _ = representation.shape
        position = torch.arange(length)
        visibility = Visibility(position - 3, position, repeats=segments)
        return Memory(representation.flatten(0, 1), target.flatten(), visibility)


def test_loss_is_the_definition(dictionary):
    model, batch = build(dictionary).eval().double(), sample_of(dictionary, 6, 6)
    with RepresentationTap(model.decoder, "last_ffn_input") as tap:
        logits = model(**batch["net_input"])[0].tolist()
    keys, target = tap.representation().tolist(), batch["target"].tolist()
    expected = 0.0
    for row in range(2):
        for t, word in enumerate(target[row]):
            seen = range(max(0, t - 3), t)
            scores = [oracle.similarity(keys[row][t], keys[row][j], 1 / 4) for j in seen]
            tokens = [target[row][j] for j in seen]
            expected -= math.log(oracle.trime_probability(logits[row][t], word, scores, tokens))
    loss, _, _ = make_criterion(RecentLoss, pad=dictionary.pad())(model, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
