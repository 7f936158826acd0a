"""trime_loss as a criterion: padding, warm-up, accumulation, logging, refusals."""

import math
from types import SimpleNamespace

import pytest
import torch
from fairseq.logging import metrics

from tests import oracle
from tests.commands import HALVES
from tests.recorded import make_criterion
from tests.small_models import build
from trime_fairseq.criterions import TrimeCriterionConfig, TrimeExtLoss, TrimeLongLoss, TrimeLoss
from trime_fairseq.memory import Visibility
from trime_fairseq.models.representation import RepresentationTap


def make(words, epoch=1, **settings):
    return make_criterion(TrimeLoss, pad=words.pad(), epoch=epoch, **settings)


def sample_of(words, *lengths):
    """Segments of the given lengths, padded at the end."""
    torch.manual_seed(4)
    tokens = torch.full((len(lengths), max(lengths) + 1), words.pad())
    for row, length in enumerate(lengths):
        tokens[row, : length + 1] = torch.randint(4, len(words), (length + 1,))
    source = tokens[:, :-1].clone()
    for row, length in enumerate(lengths):
        source[row, length:] = words.pad()
    return {
        "net_input": {"src_tokens": source, "src_lengths": torch.tensor(lengths)},
        "target": tokens[:, 1:],
        "ntokens": sum(lengths),
    }


MODELS = {
    "plain": {},
    "adaptive": dict(
        adaptive_softmax_cutoff="6,12", share_decoder_input_output_embed=False, decoder_output_dim=16
    ),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("key_type", ["last_ffn_input", "model_output"])
def test_padded_batch_is_the_sum_of_its_segments(dictionary, kind, key_type):
    model = build(dictionary, **MODELS[kind]).eval()
    criterion = make(dictionary, knn_keytype=key_type)
    batch = sample_of(dictionary, 7, 3, 5)
    loss, sample_size, log = criterion(model, batch)
    singles = []
    for row, length in enumerate([7, 3, 5]):
        single = {
            "net_input": {k: v[row : row + 1] for k, v in batch["net_input"].items()},
            "target": batch["target"][row : row + 1, :length],
            "ntokens": length,
        }
        single["net_input"]["src_tokens"] = single["net_input"]["src_tokens"][:, :length]
        singles.append(criterion(model, single))
    assert sample_size == 15
    for name in ("loss", "ori_loss", "norm_loss", "mem_mass", "mem_share"):
        assert log[name].item() == pytest.approx(sum(s[2][name].item() for s in singles), rel=1e-5)
    assert log["norm_loss"].item() != pytest.approx(log["ori_loss"].item(), rel=1e-3)
    per_token, _, _ = criterion(model, batch, reduce=False)
    assert per_token.shape == (21,)
    assert per_token.sum().item() == pytest.approx(loss.item())
    assert per_token.view(3, 7)[1, 3:].eq(0).all()


def test_loss_is_the_definition(dictionary):
    """Against the probability by explicit loops, from the model's own logits and representations."""
    model = build(dictionary).eval().double()
    batch = sample_of(dictionary, 6)
    with RepresentationTap(model.decoder, "last_ffn_input") as tap:
        logits = model(**batch["net_input"])[0][0].tolist()
    keys, target = tap.representation()[0].tolist(), batch["target"][0].tolist()
    expected = 0.0
    for t, word in enumerate(target):
        scores = [oracle.similarity(keys[t], keys[j], 1 / 4) for j in range(t)]
        expected -= math.log(oracle.trime_probability(logits[t], word, scores, target[:t]))
    loss, _, _ = make(dictionary)(model, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_gradient_reaches_the_model_through_the_captured_representation(dictionary):
    """Finite differences of the whole loss with respect to a parameter that only g depends on twice."""
    model = build(dictionary, no_decoder_final_norm=True).train().double()
    criterion, batch = make(dictionary), sample_of(dictionary, 6, 6)
    weight = model.decoder.layers[-1].final_layer_norm.weight
    loss, _, _ = criterion(model, batch)
    loss.backward()
    for index in (0, 5):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[index] += step
                values.append(criterion(model, batch)[0].item())
                weight[index] -= step
        assert weight.grad[index].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("impl", ["auto", "chunked", "naive", "triton"])
def test_memory_implementations_agree(dictionary, impl):
    if impl == "triton":
        pytest.importorskip("triton", reason="needs Triton, which comes with PyTorch for CUDA")
    model, batch = build(dictionary), sample_of(dictionary, 7, 3, 5)
    expected = make(dictionary)(model, batch)[0].item()
    loss, _, _ = make(dictionary, memory_impl=impl)(model, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("impl", ["naive", "chunked", "auto"])
def test_only_the_naive_implementation_makes_the_whole_mask(dictionary, monkeypatch, impl):
    masks = []
    dense = Visibility.dense
    monkeypatch.setattr(Visibility, "dense", lambda *args: masks.append(args) or dense(*args))
    make(dictionary, memory_impl=impl)(build(dictionary), sample_of(dictionary, 7))
    assert bool(masks) == (impl == "naive")


def test_warm_up_is_cross_entropy_in_training_only(dictionary):
    model, batch = build(dictionary), sample_of(dictionary, 6, 4)
    for epoch, training, warm in [(1, True, True), (2, True, True), (3, True, False), (1, False, False)]:
        criterion = make(dictionary, epoch=epoch, ce_warmup_epoch=2).train(training)
        loss, _, log = criterion(model, batch)
        assert (loss.item() == pytest.approx(log["ori_loss"].item())) == warm
        assert ("norm_loss" in log) == (not warm)


def test_warm_up_by_updates(dictionary):
    """Of both warm-ups the longer counts."""
    model, batch = build(dictionary), sample_of(dictionary, 6, 4)
    for update, epoch, warm_up, warm in [
        (0, 1, {}, True),
        (2, 1, {}, True),
        (3, 1, {}, False),
        (3, 1, dict(ce_warmup_epoch=1), True),
        (2, 2, dict(ce_warmup_epoch=1), True),
        (3, 2, dict(ce_warmup_epoch=1), False),
    ]:
        criterion = make(dictionary, epoch=epoch, update_num=update, ce_warmup_updates=3, **warm_up).train()
        assert ("norm_loss" not in criterion(model, batch)[2]) == warm
        assert "norm_loss" in criterion.eval()(model, batch)[2]


@pytest.mark.parametrize("name", ["ce_warmup_epoch", "ce_warmup_updates"])
def test_refuses_a_negative_warm_up(dictionary, name):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must not be negative: -1"):
        make(dictionary, **{name: -1})


def test_refuses_kernels_that_the_cpu_does_not_have(dictionary, monkeypatch):
    """Not at the first batch."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="^--memory-impl triton needs a GPU"):
        make(dictionary, memory_impl="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert make(dictionary, memory_impl="triton").memory_impl == "triton"


def test_log_is_weighted_by_token(dictionary):
    model, criterion = build(dictionary).eval(), make(dictionary)
    logs = [criterion(model, sample_of(dictionary, *lengths))[2] for lengths in [(7, 3), (2,)]]
    with metrics.aggregate() as aggregator:
        TrimeLoss.reduce_metrics(logs)
    values = aggregator.get_smoothed_values()
    expected = sum(log["loss"].item() for log in logs) / 12 / math.log(2)
    assert values["loss"] == pytest.approx(expected, abs=1e-3)
    assert values["norm_loss"] == values["loss"]
    assert values["ppl"] == pytest.approx(2 ** values["loss"], rel=1e-3)
    assert 0 < values["mem_mass"] < 1


@pytest.mark.parametrize("kind", [TrimeLoss, TrimeExtLoss, TrimeLongLoss])
def test_perplexity_is_called_what_it_is(kind):
    """That of trime_ext_loss is no language model's: tokens see later segments."""
    log = {"loss": torch.tensor(24.0), "ori_loss": torch.tensor(36.0), "ntokens": 12}
    with metrics.aggregate() as aggregator:
        kind.reduce_metrics([log])
    values = aggregator.get_smoothed_values()
    name, other = ("batch_ppl", "ppl") if kind is TrimeExtLoss else ("ppl", "batch_ppl")
    assert values[name] == pytest.approx(math.exp(2), abs=0.01)
    assert other not in values


def test_sentence_average_divides_by_segments(dictionary):
    _, sample_size, _ = make(dictionary, sentence_avg=True)(build(dictionary), sample_of(dictionary, 6, 4))
    assert sample_size == 2


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_model(dictionary, dtype):
    model, batch = build(dictionary).eval(), sample_of(dictionary, 8, 8)
    expected = make(dictionary)(model, batch)[0].item()
    loss, _, _ = make(dictionary)(model.to(dtype), batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=0.02)
    # fairseq scales the loss before it runs backward in half precision.
    (loss * 128).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("backend", ["pytorch_ddp", "c10d", "fully_sharded", "slowmo"])
def test_refuses_ddp_backends_that_cannot_train_it(dictionary, backend):
    with pytest.raises(ValueError, match="--ddp-backend legacy_ddp"):
        make(dictionary, ddp_backend=backend, distributed_world_size=2)
    make(dictionary, ddp_backend=backend, distributed_world_size=1)


@pytest.mark.parametrize(
    "setting",
    [
        dict(ce_warmup_epoch=1),
        dict(ce_warmup_updates=1),
        dict(train_softmax_temp="1.5"),
        dict(train_softmax_temp="learnt"),
    ],
)
def test_what_needs_a_task_that_knows_where_training_is_and_saves_the_temperature(dictionary, setting):
    given = dict(sentence_avg=False, ddp_backend="legacy_ddp", distributed_world_size=1)
    task = SimpleNamespace(target_dictionary=dictionary)
    TrimeLoss(TrimeCriterionConfig(**given), task)
    with pytest.raises(ValueError, match="--task trime_language_modeling"):
        TrimeLoss(TrimeCriterionConfig(**given, **setting), task)
