"""Recorded forward passes of the published code, played to the criterions."""

import json
from types import SimpleNamespace

import numpy as np
import torch
from fairseq.modules import AdaptiveSoftmax

from tests.commands import REFERENCE
from trime_fairseq.criterions import TrimeExtLoss, TrimeLongLoss, TrimeLongLossSameDevice, TrimeLoss
from trime_fairseq.data.order import TrainingOrder
from trime_fairseq.data.planned import BatchLayout

PAD = 1
CRITERIONS = {
    "trime_loss": TrimeLoss,
    "trime_long_loss": TrimeLongLoss,
    "trime_long_loss_same_device": TrimeLongLossSameDevice,
    "trime_ext_loss": TrimeExtLoss,
}
CASES = {case["name"]: case for case in json.loads((REFERENCE / "criterions.json").read_text())}


class RecordedModel(torch.nn.Module):
    """Plays a recorded forward pass: decoder output and the input of the last feed-forward block."""

    def __init__(self, features, representation, adaptive_softmax):
        super().__init__()
        layer = torch.nn.Module()
        layer.fc1 = torch.nn.Identity()
        self.decoder = torch.nn.Module()
        self.decoder.layers = torch.nn.ModuleList([layer])
        self.decoder.adaptive_softmax = adaptive_softmax
        self.features, self.representation = features, representation

    def forward(self, **net_input):
        self.decoder.layers[0].fc1(self.representation.transpose(0, 1))
        return self.features, {}

    def get_targets(self, sample, net_output):
        return sample["target"]


def make_order(**settings):
    """A training order that suits every criterion, unless told otherwise."""
    values = dict(
        keep_order=True,
        shuffle_steps=False,
        train_mem_size=0,
        predefined_batches=None,
        tokens_per_sample=8,
        sample_break_mode="none",
        max_tokens=16,
        batch_size=None,
        world_size=1,
    )
    return TrainingOrder(**{**values, **settings})


def make_criterion(kind, pad=PAD, epoch=1, order=None, update_num=0, **settings):
    """A criterion without its fairseq process: ``kind`` is its class, or its registered name."""
    kind = CRITERIONS.get(kind, kind)
    config = next(base for base in kind.__init__.__annotations__.items() if base[0] == "cfg")[1]
    given = dict(sentence_avg=False, ddp_backend="legacy_ddp", distributed_world_size=1)
    if hasattr(config, "cross_sent_ratio"):
        given.update(seed=1, finetune_from_model=None, restore_file="checkpoint_last.pt")
    task = SimpleNamespace(
        target_dictionary=SimpleNamespace(pad=lambda: pad),
        epoch=epoch,
        update_num=update_num,
        order=order or make_order(),
    )
    return kind(config(**{**given, **settings}), task)


def arrays_of(name):
    with np.load(REFERENCE / "criterions.npz") as archive:
        prefix = f"{name}/"
        return {
            key[len(prefix) :]: torch.from_numpy(archive[key])
            for key in archive.files
            if key.startswith(prefix)
        }


def play(name, rank=0, **settings):
    """Runs one rank of a case forward and backward: loss, log, and gradients by the reference's names."""
    case, arrays = CASES[name], arrays_of(name)
    softmax = AdaptiveSoftmax(case["V"], case["d"], list(case["cutoff"]), dropout=0.0, factor=4.0)
    prefix = "adaptive_softmax/"
    softmax.load_state_dict({k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)})
    features, representation = (
        arrays[f"rank{rank}/{which}"].clone().requires_grad_() for which in ("x", "reps")
    )
    target = arrays[f"rank{rank}/target"].long()
    group = case.get("num_comb_shards", len(case["B"]))
    first = rank - rank % group
    layout = BatchLayout(
        lengths=(case["L"],) * target.size(0),
        counts=tuple(rows * case["L"] for rows in case["B"][first : first + group]),
        member=rank % group,
        number=rank,
    )
    sample = {"net_input": {}, "target": target, "ntokens": target.numel(), "layout": layout}
    order = make_order(
        world_size=len(case["B"]),
        max_tokens=case.get("max_tokens", 16),
        train_mem_size=case.get("max_tokens", 0) * group,
    )
    if "cross_sent_ratio" in case:
        settings["cross_sent_ratio"] = case["cross_sent_ratio"]
    criterion = make_criterion(case["criterion"], order=order, **settings)
    model = RecordedModel(features, representation, softmax)
    loss, sample_size, log = criterion(model, sample)
    loss.backward()
    found = {
        "loss": loss.detach(),
        "ori_loss": log["ori_loss"],
        "norm_loss": log["norm_loss"],
        "sample_size": torch.tensor(sample_size),
        f"rank{rank}/grad_x": features.grad,
        f"rank{rank}/grad_reps": representation.grad,
    }
    for parameter_name, parameter in softmax.named_parameters():
        found[f"grad_adaptive_softmax_rank{rank}/{parameter_name}"] = parameter.grad
    return found


def expected(name, rank):
    """What :func:`play` must find."""
    losses = CASES[name]["ranks"][rank]
    values = {key: torch.tensor(losses[key]) for key in ("loss", "ori_loss", "sample_size")}
    values["norm_loss"] = values["loss"]
    gradients = {k: v for k, v in arrays_of(name).items() if f"rank{rank}/" in k and "grad" in k}
    return {**values, **gradients}
