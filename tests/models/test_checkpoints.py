"""Checkpoints that do not fit the data, and published ones."""

import argparse

import pytest
import torch

from tests.commands import REFERENCE
from tests.small_models import build
from trime_fairseq.models.checkpoints import check_cutoffs, embedded_types, refuse_other_dictionary


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
