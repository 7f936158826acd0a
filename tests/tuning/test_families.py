"""What a pass must see for several families, and which values are tried."""

from dataclasses import replace

import pytest

from trime_fairseq.evaluation import MemoryConfig
from trime_fairseq.tuning import (
    MemoryAxes,
    check_families,
    default_axes,
    effective_values,
    flags_of,
    recording_config,
)

from .small import AXES, FAMILIES, KNNLM, LOCAL, LONG


@pytest.mark.parametrize("name", FAMILIES)
def test_one_pass_sees_the_memories_of_a_family_and_no_others(name):
    family = FAMILIES[name]
    config = recording_config([family], AXES)
    config.check()
    assert (config.use_local, config.searches) == (family.use_local, family.searches)
    assert config.use_long == family.use_long
    assert config.use_external == family.use_external
    assert ("lmbda" in config.weight_names) == ("lmbda" in family.weight_names)
    if family.searches:
        assert config.k == 5


def test_one_pass_sees_the_memories_of_all_families():
    config = recording_config([LOCAL, KNNLM], AXES)
    assert (config.use_local, config.knnlm, config.use_external, config.use_long) == (
        True,
        True,
        False,
        False,
    )
    config = recording_config([KNNLM, FAMILIES["cache of neighbours"], LONG], AXES)
    assert (config.use_local, config.use_external, config.use_interp) == (True, True, True)
    assert (config.use_long, config.mem_size, config.k) == (True, 6, 5)
    assert recording_config([LONG], AXES._replace(mem_sizes=(0,))).use_long is False
    assert recording_config([MemoryConfig(mode="lm")], MemoryAxes()).mode == "lm"


def test_a_cache_is_charged_for_tails_as_its_evaluation_is():
    cache = replace(FAMILIES["cache"], exact_tails=False)
    assert recording_config([cache], AXES).charges_tails
    assert not recording_config([replace(LOCAL, exact_tails=False)], AXES).charges_tails


def test_families_that_need_a_pass_each():
    with pytest.raises(ValueError, match="pass --exact-tails to all"):
        check_families([FAMILIES["cache"], replace(LOCAL, exact_tails=False)])
    with pytest.raises(ValueError, match="--knn-keytype need a pass each"):
        check_families([LOCAL, replace(LOCAL, knn_keytype="last_output")])
    with pytest.raises(ValueError, match="--use-long adds to the local memory"):
        check_families([MemoryConfig(use_long=True, mem_size=4)])
    with pytest.raises(ValueError, match="the axes have no ks"):
        recording_config([KNNLM], MemoryAxes(interp_temps=(1.0,)))


def test_default_axes():
    axes = default_axes([LOCAL])
    assert (axes.mem_sizes, axes.ks, axes.interp_temps) == ((), (), ())
    assert (axes.temperatures[0], axes.temperatures[-1]) == (0.25, 32.0)
    assert 1.0 in axes.temperatures
    axes = default_axes([replace(LONG, mem_size=300), replace(LONG, mem_size=1000), replace(KNNLM, k=5)])
    assert axes.mem_sizes == (0, 64, 128, 256, 300, 512, 1000)
    assert axes.ks == (1, 2, 4, 5)
    assert axes.interp_temps[-1] == 2048
    for values in axes:
        assert list(values) == sorted(set(values))
    assert default_axes([replace(LONG, mem_size=10)]).mem_sizes == (0, 10)


def test_flags_give_the_same_setting():
    config = replace(
        LONG, softmax_temp=1.19, mode="li", cache_lmbda=0.25, knnlm=True, lmbda=0.5, interp_temp=3.36, k=7
    )
    words = flags_of(config)
    from trime_fairseq.tuning.request import given_flags

    given, rest = given_flags(MemoryConfig, words, ())
    assert not rest
    assert replace(MemoryConfig(), **given) == config
    assert flags_of(MemoryConfig()) == []


def test_settings_without_effect():
    both = replace(
        LONG, mode="li", knnlm=True, softmax_temp=1.3, k=4, interp_temp=2.0, lmbda=0.1, cache_lmbda=0.2
    )
    assert effective_values(both) == {
        **{"softmax_temp": 1.3, "mem_size": 6, "k": 4, "interp_temp": 2.0},
        **{"cache_lmbda": 0.2, "lmbda": 0.1},
    }
    assert effective_values(replace(both, lmbda=0.0)) == {
        **{"softmax_temp": 1.3, "mem_size": 6, "cache_lmbda": 0.2, "lmbda": 0.0}
    }
    assert effective_values(replace(both, cache_lmbda=0.0)) == {
        **{"k": 4, "interp_temp": 2.0, "cache_lmbda": 0.0, "lmbda": 0.1}
    }
    assert effective_values(replace(KNNLM, softmax_temp=3.0, lmbda=0.1)) == {
        "softmax_temp": 3.0,
        "k": 5,
        "lmbda": 0.1,
    }
    assert effective_values(replace(KNNLM, softmax_temp=3.0, lmbda=0.0)) == {"lmbda": 0.0}
    interpolated = replace(FAMILIES["interpolated"], softmax_temp=1.0, lmbda=0.0)
    assert effective_values(interpolated) == {"softmax_temp": 1.0, "mem_size": 6, "k": 5, "lmbda": 0.0}
