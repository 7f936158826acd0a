"""Evaluation flags that contradict each other, checkpoints that do not fit."""

import argparse

import pytest
import torch

from tests.commands import REFERENCE
from tests.small_models import build
from trime_fairseq.evaluation import EvaluationConfig, MemoryConfig
from trime_fairseq.models.checkpoints import check_cutoffs, embedded_types, refuse_other_dictionary


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
    ],
)
def test_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**flags).check()


def test_accepted():
    for flags in [
        {},
        {"use_local": True},
        {"use_local": True, "use_long": True, "mem_size": 1},
        {"use_local": True, "mode": "li", "cache_lmbda": 0.0},
    ]:
        MemoryConfig(**flags).check()
    assert not MemoryConfig(use_local=True, mode="lm").joint_memory


def test_cutoffs_beyond_the_dictionary():
    check_cutoffs(60000, "20000,60000", None, "")
    with pytest.raises(ValueError, match="exceed the dictionary of DATA"):
        check_cutoffs(59999, None, "20000,60000")


@pytest.mark.parametrize("adaptive", [True, False])
def test_checkpoint_of_another_dictionary(dictionary, adaptive):
    settings = {}
    if adaptive:
        settings = dict(
            adaptive_input=True,
            adaptive_input_cutoff="6,12",
            adaptive_softmax_cutoff="6,12",
            share_decoder_input_output_embed=False,
        )
    model = build(dictionary, **settings)
    state = model.state_dict()
    assert embedded_types(state) == len(dictionary)
    refuse_other_dictionary(model, len(dictionary))
    model.load_state_dict(state)
    refuse_other_dictionary(model, len(dictionary) + 8)
    with pytest.raises(ValueError, match="dictionary of 20 types, DATA/dict.txt has 28"):
        model.load_state_dict(state)


@pytest.mark.skipif(not hasattr(torch.serialization, "add_safe_globals"), reason="torch < 2.4")
def test_published_checkpoint_loads_with_weights_only(tmp_path):
    path = REFERENCE / "checkpoints" / "word-trime" / "checkpoint_best.pt"
    state = torch.load(path, weights_only=True)
    assert state["args"].criterion == "trime_loss"

    # Nothing else of that module is let in.
    torch.save({"args": argparse.Action}, tmp_path / "foreign.pt")
    with pytest.raises(Exception, match="argparse.Action"):
        torch.load(tmp_path / "foreign.pt", weights_only=True)


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
