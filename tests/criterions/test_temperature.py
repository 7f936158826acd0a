"""--train-softmax-temp: fixed, learnt, refused; and what a learnt one is in half precision."""

import math

import pytest
import torch
from fairseq import utils
from fairseq.logging import metrics

from tests import oracle
from tests.commands import HALVES
from tests.criterions.test_base import make, sample_of
from tests.small_models import build
from trime_fairseq.criterions import TrimeLoss
from trime_fairseq.models.representation import RepresentationTap


def learnt(words, tau, dtype=torch.float64):
    criterion = make(words, train_softmax_temp="learnt").to(dtype)
    criterion.temperature.continue_from(tau)
    return criterion


@pytest.mark.parametrize("how", ["fixed", "learnt"])
def test_loss_is_the_definition(dictionary, how):
    """Similarities q . k / (sqrt(16) tau), by explicit loops."""
    model, batch = build(dictionary).eval().double(), sample_of(dictionary, 6)
    with RepresentationTap(model.decoder, "last_ffn_input") as tap:
        logits = model(**batch["net_input"])[0][0].tolist()
    keys, target = tap.representation()[0].tolist(), batch["target"][0].tolist()
    expected = 0.0
    for t, word in enumerate(target):
        scores = [oracle.similarity(keys[t], keys[j], 1 / 4 / 2.5) for j in range(t)]
        expected -= math.log(oracle.trime_probability(logits[t], word, scores, target[:t]))
    criterion = learnt(dictionary, 2.5) if how == "learnt" else make(dictionary, train_softmax_temp="2.5")
    assert criterion(model, batch)[0].item() == pytest.approx(expected, rel=1e-9)
    assert criterion.temperature.value == pytest.approx(2.5, rel=1e-12)


def test_gradient_of_a_learnt_one(dictionary):
    """Against central differences; and the model's is that of the same temperature, fixed."""
    model, batch = build(dictionary).eval().double(), sample_of(dictionary, 6, 4)
    criterion = learnt(dictionary, 1.7)
    parameter = criterion.temperature.logarithm
    criterion(model, batch)[0].backward()
    values = []
    for step in (1e-5, -1e-5):
        criterion.temperature.continue_from(1.7 * math.exp(step))
        values.append(criterion(model, batch)[0].item())
    assert abs(parameter.grad.item()) > 0.01
    assert parameter.grad.item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)

    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    make(dictionary, train_softmax_temp="1.7")(model, batch)[0].backward()
    for ours, theirs in zip(found, [parameter.grad for parameter in model.parameters()]):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_default_is_the_published_one(dictionary):
    """No parameter that an optimizer or a checkpoint would know of, and no number that is another."""
    criterion = make(dictionary)
    assert not utils.has_parameters(criterion)
    assert not criterion.state_dict()
    assert criterion.temperature.is_published
    queries = torch.randn(3, 16)
    scaled, factor = criterion.temperature.scaled(queries)
    assert scaled is queries
    assert factor == 16**-0.5
    assert not make(dictionary, train_softmax_temp="1.5").temperature.is_published
    assert not make(dictionary, train_softmax_temp="learnt").temperature.is_published


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_leaves_a_learnt_one_in_float32(dictionary, dtype):
    """With --fp16 losses are scaled: the sum over all tokens that is its gradient exceeds float16's range."""
    model, batch = build(dictionary).eval(), sample_of(dictionary, 8, 8)
    criterion = learnt(dictionary, 1.3, dtype)
    parameter = criterion.temperature.logarithm
    assert parameter.dtype == torch.float32
    assert criterion(model.to(dtype), batch)[0].isfinite()
    # Gradients as large as those of a scaled loss.
    queries = torch.randn(4096, 16).to(dtype)
    scaled, _ = criterion.temperature.scaled(queries)
    assert scaled.dtype == dtype
    scaled.backward(64 * queries)
    expected = -64 / 1.3 * queries.double().pow(2).sum().item()
    assert abs(expected) > 65504
    assert parameter.grad.item() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e-400", "", "learned", "1,5"])
def test_refuses_what_is_no_temperature(dictionary, value):
    with pytest.raises(
        ValueError, match=f"--train-softmax-temp takes a positive number or 'learnt', not {value!r}"
    ):
        make(dictionary, train_softmax_temp=value)


@pytest.mark.parametrize("value", ["1e-40", "1e30"])
def test_refuses_what_float32_cannot_divide_by(dictionary, value):
    with pytest.raises(ValueError, match=r"--train-softmax-temp must be at (least 1e-10|most 1e\+10), not "):
        make(dictionary, train_softmax_temp=value)


def test_state_of_a_criterion_without_parameters(dictionary):
    """fairseq writes None for it: such a checkpoint is where a learnt temperature may start."""
    criterion = learnt(dictionary, 1.5, torch.float32)
    criterion.load_state_dict(None, strict=True)
    assert criterion.temperature.value == pytest.approx(1.5)
    other = make(dictionary, train_softmax_temp="learnt")
    other.load_state_dict(criterion.state_dict(), strict=True)
    assert other.temperature.value == criterion.temperature.value
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict({**criterion.state_dict(), "foreign": torch.zeros(1)}, strict=True)


def test_a_learnt_one_is_logged(dictionary):
    model, criterion = build(dictionary), learnt(dictionary, 1.25)
    logs = [criterion(model, sample_of(dictionary, *lengths))[2] for lengths in [(7, 3), (2,)]]
    with metrics.aggregate() as meters:
        TrimeLoss.reduce_metrics(logs)
    assert meters.get_smoothed_values()["softmax_temp"] == 1.25
    assert "softmax_temp" not in make(dictionary)(model, sample_of(dictionary, 7))[2]
