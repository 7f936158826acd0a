"""Any setting is arithmetic on a record: against the mixture that decodes."""

import numpy as np
import pytest
import torch

from tests.commands import REFERENCE
from tests.trusted import load_trusted
from trime_fairseq.generation import LAMBDA_TYPES, Mixture
from trime_fairseq.tuning.translation import ReferenceRecord, Setting

from .small import KS, TEMPERATURES, MadeUp


def weight_of(kind):
    return 0.3 if kind == "fix" else None


def log_prob(record, setting):
    (sums,) = record.neighbors(setting.kind, setting.temperature, (setting.k,))
    return record.log_prob(setting.kind, sums, setting.weight)


@pytest.mark.parametrize("temperature", [0.02, *TEMPERATURES, 1e4])
@pytest.mark.parametrize("kind", LAMBDA_TYPES)
def test_every_setting_is_that_of_the_decoder(kind, temperature):
    made_up = MadeUp()
    for k in KS:
        setting = Setting(kind, k, temperature, weight_of(kind))
        found = log_prob(made_up.record, setting)
        torch.testing.assert_close(found, made_up.decoded(setting), rtol=1e-5, atol=1e-5)


def test_all_numbers_of_neighbors_at_once():
    record = MadeUp().record
    for k, sums in zip(KS, record.neighbors("trime", 1.5, KS)):
        (alone,) = record.neighbors("trime", 1.5, (k,))
        torch.testing.assert_close(sums.every, alone.every)
        torch.testing.assert_close(sums.positive, alone.positive)


@pytest.mark.parametrize("kind", LAMBDA_TYPES)
def test_a_model_that_is_certain(kind):
    """No room for other tokens in float32."""
    made_up = MadeUp()
    made_up.logits.scatter_(1, made_up.targets.unsqueeze(1), 300.0)
    setting = Setting(kind, 6, 2.0, weight_of(kind))
    found = log_prob(made_up.record, setting)
    assert found.isfinite().all()
    torch.testing.assert_close(found, made_up.decoded(setting), rtol=1e-5, atol=1e-5)


def test_neighbors_that_agree():
    """All of them right: nothing is left for other tokens."""
    made_up = MadeUp(helpful=1.1)
    for kind in LAMBDA_TYPES:
        setting = Setting(kind, 6, 1.0, weight_of(kind))
        found = log_prob(made_up.record, setting)
        torch.testing.assert_close(found, made_up.decoded(setting), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("index", ["flat_ip", "flat_l2", "knn_index_ip", "knn_index_l2"])
def test_published_neighbors(index):
    """Features of references and what the published code found for them, on the published model."""
    data = np.load(REFERENCE / "mt" / "retrieval.npz")
    weights = load_trusted(REFERENCE / "mt" / "checkpoint" / "checkpoint_best.pt")["model"]
    logits = torch.from_numpy(data["test_feature"]) @ weights["decoder.output_projection.weight"].t()
    values = np.fromfile(REFERENCE / "mt" / "datastore" / "vals.npy", dtype=np.int64)
    scores = torch.from_numpy(data[f"{index}_score"])
    scores = -scores if index.endswith("l2") else scores
    tokens = torch.from_numpy(values[data[f"{index}_id"]])
    targets = torch.from_numpy(data["test_target"]).long()
    picked = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    record = ReferenceRecord(logits.logsumexp(1), picked, scores, tokens.int(), targets, 64, 10)
    for kind in LAMBDA_TYPES:
        for k, temperature in ((2, 20.0), (8, 2.0), (8, 100.0)):
            setting = Setting(kind, k, temperature, weight_of(kind))
            mixture = Mixture.create(kind, temperature, 64, setting.weight)
            expected = mixture.log_probs(logits, scores[:, :k], tokens[:, :k])
            expected = expected.gather(1, targets.unsqueeze(1)).squeeze(1)
            torch.testing.assert_close(log_prob(record, setting), expected, rtol=1e-5, atol=2e-5)
