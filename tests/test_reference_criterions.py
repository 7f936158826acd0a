"""trime_loss against loss and gradients of the published code."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.modules import AdaptiveSoftmax

from tests.commands import REFERENCE
from trime_fairseq.criterions.trime_criterion import TrimeCriterionConfig
from trime_fairseq.criterions.trime_loss import TrimeLoss

PAD = 1


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


@pytest.fixture(scope="module")
def case():
    description = next(
        c for c in json.loads((REFERENCE / "criterions.json").read_text()) if c["name"] == "trime"
    )
    with np.load(REFERENCE / "criterions.npz") as archive:
        arrays = {
            name.split("/", 1)[1]: torch.from_numpy(archive[name])
            for name in archive.files
            if name.startswith("trime/")
        }
    return description, arrays


def make_criterion(**settings):
    cfg = TrimeCriterionConfig(
        sentence_avg=False, ddp_backend="legacy_ddp", distributed_world_size=1, **settings
    )
    return TrimeLoss(cfg, SimpleNamespace(target_dictionary=SimpleNamespace(pad=lambda: PAD), epoch=1))


def test_loss_and_gradients(case):
    description, arrays = case
    softmax = AdaptiveSoftmax(
        description["V"], description["d"], list(description["cutoff"]), dropout=0.0, factor=4.0
    )
    prefix = "adaptive_softmax/"
    softmax.load_state_dict({k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)})
    features = arrays["rank0/x"].clone().requires_grad_()
    representation = arrays["rank0/reps"].clone().requires_grad_()
    target = arrays["rank0/target"].long()
    sample = {"net_input": {}, "target": target, "ntokens": target.numel()}

    model = RecordedModel(features, representation, softmax)
    loss, sample_size, log = make_criterion()(model, sample)
    loss.backward()

    expected = description["ranks"][0]
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-5)
    assert log["ori_loss"].item() == pytest.approx(expected["ori_loss"], rel=1e-5)
    assert log["norm_loss"].item() == pytest.approx(expected["loss"], rel=1e-5)
    assert sample_size == expected["sample_size"]
    torch.testing.assert_close(features.grad, arrays["rank0/grad_x"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(representation.grad, arrays["rank0/grad_reps"], rtol=1e-5, atol=1e-6)
    for name, parameter in softmax.named_parameters():
        recorded = arrays[f"grad_adaptive_softmax_rank0/{name}"]
        torch.testing.assert_close(parameter.grad, recorded, rtol=1e-5, atol=1e-6)
