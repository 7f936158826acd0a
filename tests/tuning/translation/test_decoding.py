"""Which settings are decoded, for BLEU that is known."""

import math

import pytest

from trime_fairseq.tuning.translation import tune_by_bleu

from .small import KS, TEMPERATURES, Decoder, tuned


def hill(k, temperature, weight=None):
    """BLEU with one maximum."""

    def bleu(setting):
        found = 20 - abs(KS.index(setting.k) - KS.index(k))
        found -= abs(math.log2(setting.temperature / temperature))
        return found - (abs(setting.weight - weight) if weight is not None else 0.0)

    return bleu


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("k", KS)
def test_climbs_to_the_best(k, temperature):
    decoder = Decoder(hill(k, temperature))
    found = tune_by_bleu(tuned("trime"), decoder, most=100)
    assert (found.best.setting.k, found.best.setting.temperature) == (k, temperature)
    assert found.best.quality.bleu == 20
    assert not found.unfinished
    # The model alone first, then the best by loss; nothing twice.
    assert decoder.asked[0] is None
    assert decoder.asked[1] == tuned("trime").settings[0].setting
    assert len(set(decoder.asked)) == len(decoder.asked)


def test_weights_move_as_well():
    by_loss = tuned("fix")
    start = by_loss.settings[0].setting
    better = min(0.9, start.weight + 0.3)
    decoder = Decoder(hill(start.k, start.temperature, better))
    found = tune_by_bleu(by_loss, decoder, most=100)
    assert found.best.setting.weight == pytest.approx(better, abs=0.06)
    assert (found.best.setting.k, found.best.setting.temperature) == (start.k, start.temperature)


def test_a_weight_that_is_given_stays():
    decoder = Decoder(hill(3, 2.0, 0.9))
    tune_by_bleu(tuned("fix", weight=0.25), decoder, most=100)
    assert {setting.weight for setting in decoder.asked[1:]} == {0.25}


def test_temperature_weight_and_neighbors_take_turns():
    """Whatever is decoded, BLEU is the same: the first is the best, and its losses decide."""
    by_loss = tuned("fix", ks=(1, 3, 6), temperatures=(0.5, 1.0, 2.0, 4.0, 8.0))
    decoder = Decoder(lambda setting: 5.0)
    found = tune_by_bleu(by_loss, decoder, most=4)
    start, *others = decoder.asked[1:]
    changed = [
        [name for name in ("temperature", "weight", "k") if getattr(one, name) != getattr(start, name)]
        for one in others
    ]
    assert changed == [["temperature"], ["weight"], ["k"]]
    assert found.unfinished == ("fix",)
    # Equal BLEU: the lower loss.
    assert found.best.tried.loss == min(one.tried.loss for one in found.decoded)


def test_so_many_of_each_form():
    decoder = Decoder(hill(6, 8.0))
    found = tune_by_bleu(tuned("trime", "trime-published", "fix"), decoder, most=2)
    kinds = [setting.kind for setting in decoder.asked[1:]]
    assert kinds == ["trime"] * 2 + ["trime-published"] * 2 + ["fix"] * 2
    for kind in set(kinds):
        ours = [one for one in found.decoded if one.setting.kind == kind]
        assert found.best_of(kind) == max(ours, key=lambda one: one.quality.bleu)
    one = tune_by_bleu(tuned("trime"), Decoder(hill(6, 8.0)), most=1)
    assert [single.setting for single in one.decoded] == [tuned("trime").settings[0].setting]
