"""Evaluation flags that contradict each other."""

import pytest

from trime_fairseq.evaluation import EvaluationConfig, MemoryConfig


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
        ({"mode": "li", "use_local": True}, "--mode li needs --cache-lmbda"),
        ({"mode": "li", "use_local": True, "cache_lmbda": 1.0}, "--mode li needs --cache-lmbda"),
        ({"use_local": True, "cache_lmbda": 0.1}, "pass --mode li"),
        ({"use_external": True, "k": 0}, "--k must be positive"),
        ({"knnlm": True, "use_local": True, "lmbda": 0.5}, "--knnlm is the plain kNN-LM: no --use-local"),
        ({"knnlm": True, "interp_temp": 2.0, "lmbda": 0.5}, "takes its temperature from --softmax-temp"),
        ({"knnlm": True}, "--lmbda, .* is needed"),
        ({"use_interp": True, "lmbda": 0.5}, "pass --use-external"),
        ({"use_external": True, "use_interp": True, "lmbda": 1.5}, r"--lmbda, .* in \[0, 1\]"),
        ({"use_external": True, "use_interp": True, "interp_temp": 0.0}, "--interp-temp must be positive"),
        ({"use_external": True, "lmbda": 0.5}, "are for --use-interp: pass it"),
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
