"""Checkpoints of the reference text with changes, in the format of old fairseqs and in that of new ones."""

import argparse
import copy
import functools

from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from tests.commands import REFERENCE
from tests.trusted import load_trusted
from trime_fairseq.evaluation.in_process import register

PUBLISHED = REFERENCE / "checkpoints" / "word-trime" / "checkpoint_best.pt"


@functools.cache
def _published():
    register()
    return load_trusted(PUBLISHED)


def old(**settings):
    """As fairseq 0.9 saved it, with other settings."""
    state = copy.deepcopy(_published())
    vars(state["args"]).update(settings)
    return state


@functools.cache
def _composed(task):
    args = argparse.Namespace(**vars(_published()["args"]))
    args.task, args.train_mem_size, args.cross_sent_ratio = task, 0, 0.0
    return OmegaConf.to_container(convert_namespace_to_omegaconf(args), resolve=True, enum_to_str=True)


def new(task_name="language_modeling", **groups):
    """As fairseq saves it today; ``model=dict(dropout=0)`` changes a group of settings."""
    state = copy.deepcopy(_published())
    state["args"], state["cfg"] = None, copy.deepcopy(_composed(task_name))
    for name, values in groups.items():
        state["cfg"][name] = {**(state["cfg"][name] or {}), **values}
    return state
