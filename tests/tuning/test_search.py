"""The best setting against all settings, tried one by one."""

import math
from dataclasses import replace

import pytest
import torch

from trime_fairseq.evaluation.memory_scores import NeighborScores
from trime_fairseq.evaluation.mixture import Distributions, Mixture
from trime_fairseq.tuning import mixture, search, tune
from trime_fairseq.tuning.report import remarks

from .small import AXES, FAMILIES, KNNLM, LOCAL, LONG, evaluated, recorded, tuned_of


def bits(log_prob):
    return -log_prob.double().mean().item() / math.log(2)


@pytest.fixture(scope="module")
def record():
    return recorded(list(FAMILIES.values()))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_best_of_each_family(name, record):
    family = FAMILIES[name]
    tuned = tune(record, family)
    best = tuned.best
    best.config.check()
    # A separate evaluation of it has the same loss.
    scorer, _ = evaluated(best.config)
    assert scorer.totals.finish().loss == pytest.approx(best.loss, rel=1e-5)
    assert len(tuned.tried) == tuned.combinations
    assert [setting.loss for setting in tuned.settings] == sorted(setting.loss for setting in tuned.settings)
    assert tuned.without_memory.loss == pytest.approx(scorer.totals.finish().loss_without_memory, rel=1e-6)
    # No weights on a grid are better, at any place.
    grid = [number / 10 for number in range(11)]
    for setting in tuned.tried.values():
        names = setting.config.weight_names
        for first in grid if names else ():
            for second in [share for share in grid if first + share <= 1] if len(names) > 1 else (0.0,):
                tried = replace(setting.config, **dict(zip(names, (first, second))))
                assert bits(mixture(record, tried).log_prob) >= setting.loss - 1e-7
        assert bits(mixture(record, setting.config).log_prob) == pytest.approx(setting.loss, rel=1e-9)


def test_weights_that_are_given_stay(record):
    family = replace(FAMILIES["knnlm and cache"], cache_lmbda=0.123)
    tuned = tune(record, family)
    assert {setting.config.cache_lmbda for setting in tuned.settings} == {0.123}
    assert tuned.best.loss >= tune(record, FAMILIES["knnlm and cache"]).best.loss


def test_a_family_tries_its_own_sizes_only(record):
    tuned = tune(record, replace(LONG, mem_size=2))
    assert tuned.values == {"softmax_temp": AXES.temperatures, "mem_size": (0, 2)}
    by_size = tuned.best_by("mem_size")
    assert [setting.config.use_long for setting in by_size.values()] == [False, True]
    assert by_size[0].loss == pytest.approx(tune(record, LOCAL).best.loss, rel=1e-9)
    assert tune(record, LOCAL).best_by("mem_size") == {}


@pytest.mark.parametrize("name", ["interpolated", "knnlm and cache", "external"])
def test_settings_that_take_turns_find_the_best(name, record, monkeypatch):
    whole = tune(record, FAMILIES[name])
    monkeypatch.setattr(search, "_MOST_TRIED", 1)
    tuned = tune(record, FAMILIES[name])
    assert tuned.best.loss == whole.best.loss
    assert list(tuned.best_by("mem_size")) == [0, 2, 6]
    if name != "external":
        assert len(tuned.tried) < tuned.combinations == len(whole.tried)


def test_settings_that_are_one_distribution_stand_once():
    """With a weight of 0 the temperature and the number of neighbours say nothing."""
    tuned = tuned_of(replace(KNNLM, lmbda=0.0), lambda config: 7.0, softmax_temp=(1.0, 2.0, 4.0), k=(1, 2, 5))
    assert len(tuned.tried) == 9
    assert len(tuned.settings) == 1
    with_weight = tuned_of(KNNLM, lambda config: config.k, softmax_temp=(1.0, 2.0), k=(1, 2, 5))
    assert [setting.loss for setting in with_weight.settings] == [1, 1, 2, 2, 5, 5]


def test_a_loss_that_is_no_number_is_the_last():
    tuned = tuned_of(
        LOCAL, lambda config: math.nan if config.softmax_temp == 1 else 3.0, softmax_temp=(1.0, 2.0)
    )
    assert tuned.best.config.softmax_temp == 2
    # Nor does it stand in a table.
    assert [setting.loss for setting in tuned.settings] == [3.0]
    assert "the loss of 1 settings is no number; they are left out" in remarks(tuned)


@pytest.mark.parametrize(
    ("value", "message"),
    [(math.nan, "the loss of all settings is NaN"), (-math.inf, "infinite: some token has probability 0")],
)
def test_nothing_is_best_where_no_loss_is_finite(value, message, record):
    broken = replace(record, target_logit=torch.full_like(record.target_logit, value))
    with pytest.raises(ValueError, match=message):
        tune(broken, replace(KNNLM, lmbda=0.0))


def test_the_model_keeps_some_weight():
    """Neighbours that always know better: a weight of 1 would be a probability of 0 on another text."""
    first, always = torch.full((4,), -9.0), torch.full((4,), -0.5)
    exists = torch.ones(4, dtype=torch.bool)
    zeros = torch.zeros(4)
    parts = Distributions(Mixture(first, zeros, zeros), (NeighborScores(always, exists),))
    assert search._best_weights(parts, [None]) == [0.999999]
    two = parts._replace(others=parts.others * 2)
    assert sum(search._best_weights(two, [None, None])) == pytest.approx(0.999999)
    assert search._best_weights(two, [0.25, None]) == [0.25, pytest.approx(0.749999)]
    assert search._best_weights(two, [0.5, 0.25]) == [0.5, 0.25]
