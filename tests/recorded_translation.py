"""Recorded forward passes of the published translation code, played to ``trime_mt_loss``."""

import json
from types import SimpleNamespace

import numpy as np
import torch
from fairseq.models.transformer import TransformerDecoderBase
from torch import nn

from tests.commands import REFERENCE
from trime_fairseq.criterions import TrimeMtConfig, TrimeMtLoss
from trime_fairseq.data.host_targets import host_copy

PAD = 1
CASES = json.loads((REFERENCE / "mt" / "criterions.json").read_text())


class RecordedDecoder(TransformerDecoderBase):
    """fairseq's, but for its layers: the output is given."""

    def __init__(self, weight, bias=None):
        nn.Module.__init__(self)
        self.share_input_output_embed, self.adaptive_softmax = False, None
        self.output_projection = nn.Linear(weight.size(1), weight.size(0), bias is not None).to(weight)
        self.output_projection.weight.data.copy_(weight)
        if bias is not None:
            self.output_projection.bias.data.copy_(bias)

    def extract_features(self, prev_output_tokens, **others):
        return self.features, {}


class RecordedModel(nn.Module):
    """Plays the output of a decoder, [B, L, d], to a projection."""

    def __init__(self, features, weight, bias=None):
        super().__init__()
        self.decoder = RecordedDecoder(weight, bias)
        self.decoder.features = features

    def forward(self, features_only=False):
        return self.decoder(None, features_only=features_only)


class ProjectingModel(nn.Module):
    """The same by a decoder that is none of fairseq's transformers: it gives logits and no features."""

    def __init__(self, features, weight):
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.output_projection = nn.Linear(weight.size(1), weight.size(0), bias=False).to(weight)
        self.decoder.output_projection.weight.data.copy_(weight)
        self.features = features

    def forward(self):
        return self.decoder.output_projection(self.features), {}


def make_criterion(pad=PAD, epoch=1, update_num=0, task=None, **settings):
    """The criterion without its fairseq process; a ``task`` of its own may lack what ours has."""
    given = dict(sentence_avg=False, ddp_backend="legacy_ddp", distributed_world_size=1, max_update=0)
    known = task or SimpleNamespace(epoch=epoch, update_num=update_num)
    known.target_dictionary = SimpleNamespace(pad=lambda: pad)
    return TrimeMtLoss(TrimeMtConfig(**{**given, **settings}), known)


def make_sample(target, on_host=True, nsentences=None):
    """A batch of targets [B, L] as our task gives it, or (not ``on_host``) as fairseq's own does."""
    tokens = int((target != PAD).sum())
    sample = {"net_input": {}, "target": target, "ntokens": tokens}
    sample["nsentences"] = len(target) if nsentences is None else nsentences
    return {**sample, "host_target": host_copy(target)} if on_host else sample


def arrays_of(name):
    with np.load(REFERENCE / "mt" / "criterions.npz") as archive:
        prefix = f"{name}/"
        found = {key[len(prefix) :]: archive[key] for key in archive.files if key.startswith(prefix)}
    return {key: torch.from_numpy(array) for key, array in found.items()}


def settings_of(name):
    """The flags of a case."""
    return {flag: CASES[name][flag] for flag in ("dist_func", "temp", "topk_mem")}


def model_and_sample(name, rank=0, model=RecordedModel):
    """The player of one rank of a case, and its batch."""
    arrays = arrays_of(name)
    features = arrays[f"rank{rank}/x"].clone().requires_grad_()
    return model(features, arrays["weight"]), make_sample(arrays[f"rank{rank}/target"])


def play(name, rank=0, model=RecordedModel):
    """Runs one rank of a case forward and backward: what :func:`expected` has."""
    player, sample = model_and_sample(name, rank, model)
    features = player.decoder.features if model is RecordedModel else player.features
    criterion = make_criterion(**settings_of(name)).train()
    loss, sample_size, log = criterion(player, sample)
    loss.backward()
    per_token, _, _ = criterion(player, sample, reduce=False)
    return {
        "loss": loss.detach(),
        "ce": log["ori_loss"],
        "norm_loss": log["norm_loss"],
        "sample_size": torch.tensor(sample_size),
        "loss_per_token": per_token.detach().view_as(sample["target"]),
        "grad_x": features.grad,
        "grad_weight": player.decoder.output_projection.weight.grad,
    }


def expected(name, rank=0):
    losses, arrays = CASES[name]["ranks"][rank], arrays_of(name)
    values = {key: torch.tensor(losses[key]) for key in ("loss", "ce", "sample_size")}
    values["norm_loss"] = values["loss"]
    names = ("loss_per_token", "grad_x", "grad_weight")
    return {**values, **{key: arrays[f"rank{rank}/{key}"] for key in names}}
