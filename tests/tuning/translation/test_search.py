"""The best settings by the loss of the references."""

import math

import pytest
import torch

from trime_fairseq.tuning.translation import Axes, Setting, tune_by_loss

from .small import KS, TEMPERATURES, MadeUp, tuned


def bits(log_prob):
    return -log_prob.double().mean().item() / math.log(2)


def test_all_settings_with_the_losses_of_the_decoder():
    made_up = MadeUp()
    found = tuned("trime", "trime-normalized", "fix")
    assert len(found.tried) == 3 * len(KS) * len(TEMPERATURES)
    for one in found.tried:
        assert one.loss == pytest.approx(bits(made_up.decoded(one.setting)), rel=1e-5)
    losses = [one.loss for one in found.settings]
    assert losses == sorted(losses)
    assert found.best_of("fix") == next(one for one in found.settings if one.setting.kind == "fix")
    targets = made_up.logits.log_softmax(1).gather(1, made_up.targets.unsqueeze(1))
    assert found.loss_without_memory == pytest.approx(bits(targets), rel=1e-6)


def test_the_weight_is_the_best_one():
    found = tuned("fix")
    for one in found.tried:
        setting = one.setting
        others = [
            found.loss_of(Setting("fix", setting.k, setting.temperature, weight / 50)).loss
            for weight in range(50)
        ]
        assert one.loss <= min(others) + 1e-5
        assert 0 <= setting.weight < 1


def test_neighbors_that_know_nothing_get_no_weight():
    made_up = MadeUp()
    made_up.tokens.fill_(10)
    made_up.targets.fill_(3)
    found = tune_by_loss(made_up.record, Axes(("fix",), KS, TEMPERATURES))
    assert found.settings[0].setting.weight == 0.0
    assert found.settings[0].loss == pytest.approx(found.loss_without_memory, rel=1e-6)


def test_a_weight_that_is_given_stays():
    found = tuned("fix", weight=0.25)
    assert {one.setting.weight for one in found.tried} == {0.25}


def test_what_sums_to_more_has_the_loss_of_the_normalized():
    published, normalized = tuned("trime-published"), tuned("trime-normalized")
    assert [one.loss for one in published.tried] == [one.loss for one in normalized.tried]


def test_a_model_that_computes_no_numbers():
    made_up = MadeUp()
    made_up.logits[3] = torch.nan
    with pytest.raises(ValueError, match=r"--knn-lambda-type trime: no setting has a finite loss"):
        tune_by_loss(made_up.record, Axes(("trime",), KS, TEMPERATURES))
