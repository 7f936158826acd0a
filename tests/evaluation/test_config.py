"""Evaluation flags that contradict each other."""

import pytest

from trime_fairseq.evaluation import EvaluationConfig, MemoryConfig

# Cache and kNN-LM together.
BOTH = dict(knnlm=True, mode="li", use_local=True, cache_lmbda=0.7, lmbda=0.3, interp_temp=5.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"softmax_temp": 0.0}, "--softmax-temp must be positive"),
        ({"softmax_temp": -1.0}, "--softmax-temp must be positive"),
        ({"softmax_temp": float("nan")}, "--softmax-temp must be positive"),
        ({"use_long": True, "mem_size": 10}, "pass --use-local"),
        ({"use_local": True, "use_long": True}, "--use-long needs --mem-size N"),
        ({"use_local": True, "use_long": True, "mem_size": -5}, "--mem-size must be positive, not -5"),
        ({"use_local": True, "mem_size": 10}, "pass --use-long"),
        ({"mode": "li", "cache_lmbda": 0.1}, "--mode li interpolates with a memory"),
        ({"mode": "li", "use_local": True}, r"--cache-lmbda, .* is needed, in \[0, 1\]$"),
        ({"mode": "li", "use_local": True, "cache_lmbda": 1.1}, r"--cache-lmbda, .* in \[0, 1\], not 1.1"),
        ({"use_local": True, "cache_lmbda": 0.1}, "pass --mode li"),
        ({"use_external": True, "k": 0}, "--k must be positive"),
        ({"knnlm": True, "use_local": True, "lmbda": 0.5}, "pass --mode li to interpolate with --use-local"),
        ({"knnlm": True, "use_external": True, "lmbda": 0.5}, "--knnlm searches by itself: leave out"),
        ({"knnlm": True, "mode": "lm", "lmbda": 0.5}, "--knnlm is no --mode lm"),
        ({"knnlm": True, "interp_temp": 2.0, "lmbda": 0.5}, "takes its temperature from --softmax-temp"),
        ({"knnlm": True}, "--lmbda, .* is needed"),
        ({"use_interp": True, "lmbda": 0.5}, "pass --use-external"),
        ({"use_external": True, "use_interp": True, "lmbda": 1.5}, r"--lmbda, .* in \[0, 1\]"),
        ({"use_external": True, "use_interp": True, "interp_temp": 0.0}, "--interp-temp must be positive"),
        ({"use_external": True, "lmbda": 0.5}, "are for --use-interp: pass it"),
        ({**BOTH, "use_external": True}, "--knnlm searches by itself: leave out"),
        ({**BOTH, "use_local": False}, "pass --use-local as well"),
        ({**BOTH, "cache_lmbda": None}, "--cache-lmbda, .* is needed"),
        ({**BOTH, "lmbda": None}, "--lmbda, .* is needed"),
        ({**BOTH, "cache_lmbda": -0.1}, "--cache-lmbda, .*, not -0.1"),
        ({**BOTH, "cache_lmbda": 0.71}, "--cache-lmbda 0.71 and --lmbda 0.3 exceed 1 together"),
        ({**BOTH, "lmbda": float("nan")}, "--lmbda, .*, not nan"),
        ({**BOTH, "mode": "gn"}, "pass --mode li to interpolate"),
        ({**BOTH, "knnlm": False}, "are for --use-interp: .*--knnlm instead"),
    ],
)
def test_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**flags).check()


@pytest.mark.parametrize(
    ("flags", "joint", "searches"),
    [
        ({}, False, False),
        ({"use_local": True}, True, False),
        ({"use_local": True, "use_long": True, "mem_size": 1}, True, False),
        ({"use_local": True, "mode": "lm"}, False, False),
        ({"use_local": True, "mode": "li", "cache_lmbda": 0.0}, True, False),
        ({"use_external": True, "use_interp": True, "lmbda": 1.0}, True, True),
        ({"use_external": True, "mode": "lm"}, False, False),
        ({"knnlm": True, "lmbda": 0.0}, False, True),
        (BOTH, True, True),
        ({**BOTH, "use_long": True, "mem_size": 1, "lmbda": 0.0, "cache_lmbda": 1.0}, True, True),
    ],
)
def test_what_is_used(flags, joint, searches):
    config = MemoryConfig(**flags)
    config.check()
    assert (config.joint_memory, config.searches) == (joint, searches)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"probe": 8, "no_load_keys": True}, "--probe and --no-load-keys: for external memory"),
        ({"dstore_fp16": True}, "no datastore is written or searched"),
        ({"dstore_mmap": "d"}, "pass --save-knnlm-dstore as well"),
        ({"save_knnlm_dstore": True}, "needs --dstore-mmap"),
        ({"save_knnlm_dstore": True, "dstore_mmap": "d", "knnlm": True}, "write it first"),
        ({"use_external": True, "check_recall": -1}, "--check-recall must be positive"),
    ],
)
def test_datastore_flags_that_would_do_nothing(flags, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**flags).check()


@pytest.mark.parametrize(
    ("flags", "trained", "used"),
    [
        ({}, 1.4, 1.4),
        ({}, None, 1.0),
        ({"softmax_temp": 1.0}, 1.4, 1.0),
        ({"use_external": True, "use_interp": True}, 1.4, 1.4),
        # Of a softmax in which the training had no part.
        ({"mode": "li"}, 1.4, 1.0),
        ({"knnlm": True}, 1.4, 1.0),
        ({"knnlm": True, "softmax_temp": 9.0}, 1.4, 9.0),
    ],
)
def test_temperature_where_no_flag_says_it(flags, trained, used):
    config = EvaluationConfig(**flags)
    assert config.with_softmax_temp(trained).softmax_temp == used
    assert MemoryConfig(**flags).joint_temp == flags.get("softmax_temp", 1.0)


def test_whose_temperature_the_neighbours_take():
    flags = dict(softmax_temp=2.0, interp_temp=3.0)
    assert MemoryConfig(knnlm=True, **flags).neighbor_temp == 2.0
    assert MemoryConfig(knnlm=True, mode="li", **flags).neighbor_temp == 3.0
    assert MemoryConfig(use_external=True, use_interp=True, **flags).neighbor_temp == 3.0
