"""trime_mt_loss as a criterion: padding, warm-up, prefix, idle ranks, logging, refusals."""

import math
from types import SimpleNamespace

import pytest
import torch
from fairseq.logging import metrics

from tests import oracle
from tests.commands import HALVES, needs_half_on_cpu
from tests.recorded_translation import (
    PAD,
    ProjectingModel,
    RecordedModel,
    make_criterion,
    make_sample,
)
from trime_fairseq.criterions import TrimeMtLoss
from trime_fairseq.criterions.target_rows import TargetRows
from trime_fairseq.memory import joint_loss

LENGTHS = (7, 3, 5)


def batch(*lengths, left=False, width=16, types=9, dtype=torch.float64):
    """Decoder outputs, weights and targets of sentences, padded at their end or (``left``) beginning."""
    torch.manual_seed(3)
    target = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in zip(target, lengths):
        place = slice(len(row) - length, None) if left else slice(length)
        row[place] = torch.randint(2, types, (length,))
    features = torch.randn(*target.shape, width, dtype=dtype)
    return features.requires_grad_(), torch.randn(types, width, dtype=dtype), target


def run(features, weight, target, model=RecordedModel, reduce=True, **settings):
    player = model(features, weight)
    criterion = make_criterion(**{"temp": 2.0, "topk_mem": 3, **settings}).train()
    return *criterion(player, make_sample(target), reduce=reduce), player


def expected_losses(features, weight, target, prefix=0, topk=3, temperature=2.0, metric="ip"):
    """By explicit loops: the loss of each position, 0 at padding and prefixes."""
    sentences = [[t for t, token in enumerate(row) if token != PAD] for row in target.tolist()]
    memory = [(b, target[b, t].item(), features[b, t].tolist()) for b, s in enumerate(sentences) for t in s]
    losses = [[0.0] * target.size(1) for _ in sentences]
    scale = features.size(-1) ** -0.5 / temperature
    for b, sentence in enumerate(sentences):
        for t in sentence[prefix:]:
            query, token = features[b, t].tolist(), target[b, t].item()
            logits = [oracle.similarity(query, row, 1.0) for row in weight.tolist()]
            seen = [(word, key) for other, word, key in memory if other != b]
            (every,), (positive,) = oracle.nearest_lse(
                [query], [key for _, key in seen], [token], [word for word, _ in seen],
                lambda i, j: True, scale, topk, metric,
            )  # fmt: skip
            above = oracle.log_add([oracle.log_add(logits), every])
            losses[b][t] = above - oracle.log_add([logits[token], positive])
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("topk", [3, None])
@pytest.mark.parametrize("prefix", [0, 1, 4, 9])
def test_loss_is_the_definition(prefix, topk, metric, left):
    """The first tokens of a sentence, of --ignore-prefix-size, are memory all the same."""
    inputs = batch(*LENGTHS, left=left)
    settings = dict(ignore_prefix_size=prefix, topk_mem=topk, dist_func=metric)
    loss, sample_size, log, _ = run(*inputs, **settings)
    expected = expected_losses(*inputs, prefix=prefix, topk=topk, metric=metric)
    torch.testing.assert_close(loss, expected.sum())
    assert sample_size == log["ntokens"] == log["sample_size"] == sum(max(0, n - prefix) for n in LENGTHS)
    per_token, _, _, _ = run(*inputs, reduce=False, **settings)
    torch.testing.assert_close(per_token.view_as(expected), expected)
    assert log["loss"] == log["norm_loss"] == loss.detach()


@pytest.mark.parametrize("model", [RecordedModel, ProjectingModel])
@pytest.mark.parametrize("prefix", [0, 2])
def test_gradient_is_that_of_the_definition(model, prefix):
    """Finite differences of the whole loss, which reaches features as logits, queries and keys."""
    features, weight, target = batch(4, 2, 3, width=4, types=5)

    def loss(features):
        return run(features, weight, target, model, ignore_prefix_size=prefix)[0]

    assert torch.autograd.gradcheck(loss, (features,))


def test_gradient_in_weight_and_bias():
    features, weight, target = batch(4, 2, 3, width=4, types=5)
    found = []
    for reduce in (True, False):
        # Not reduced, token scores and the objective are differentiated one by one.
        player = RecordedModel(features, weight, bias=torch.arange(5.0, dtype=torch.float64))
        make_criterion(topk_mem=2)(player, make_sample(target), reduce=reduce)[0].sum().backward()
        found.append([parameter.grad for parameter in player.parameters()])
    assert len(found[0]) == 2
    for one, two in zip(*found):
        torch.testing.assert_close(one, two)


def test_targets_on_the_device_alone():
    """Batches of fairseq's own task have no copy on the host."""
    features, weight, target = batch(*LENGTHS)
    losses = [
        make_criterion()(RecordedModel(features, weight), make_sample(target, on_host=on_host))[0].item()
        for on_host in (True, False)
    ]
    assert losses[0] == losses[1]


def test_padding_changes_nothing():
    features, weight, target = batch(*LENGTHS)
    wider = torch.cat([target, torch.full((3, 4), PAD)], dim=1)
    noise = torch.cat([features, torch.randn(3, 4, 16, dtype=torch.float64)], dim=1).detach().requires_grad_()
    one, two = run(features, weight, target)[0], run(noise, weight, wider)[0]
    torch.testing.assert_close(one, two)
    two.backward()
    assert noise.grad[wider == PAD].eq(0).all()


def test_a_rank_without_sentences_has_no_loss_and_no_key():
    """What our task gives a rank that has no batch left: a row without a target."""
    features, weight, target = batch(1)
    target[:] = PAD
    loss, sample_size, log, player = run(features, weight, target, report_accuracy=True)
    loss.backward()
    assert (loss.item(), sample_size, log["ntokens"]) == (0.0, 0, 0)
    assert features.grad.eq(0).all()
    assert player.decoder.output_projection.weight.grad.eq(0).all()


WARM_UPS = [
    (dict(ce_warmup_epoch=2), [(1, 0, True), (2, 99, True), (3, 0, False)]),
    (dict(ce_warmup_updates=3), [(1, 0, True), (1, 2, True), (1, 3, False), (9, 2, True)]),
    (dict(ce_warmup_ratio=0.5, max_update=6), [(1, 0, True), (1, 2, True), (1, 3, False)]),
    (dict(ce_warmup_ratio=0.1, max_update=30), [(1, 2, True), (1, 3, False)]),
    (dict(ce_warmup_ratio=0.5, max_update=6, ce_warmup_updates=5), [(1, 4, True), (1, 5, False)]),
    (dict(ce_warmup_ratio=0.0, max_update=6), [(1, 0, False)]),
    ({}, [(1, 0, False)]),
]


@pytest.mark.parametrize(("settings", "steps"), WARM_UPS)
def test_warm_up_is_cross_entropy_in_training_only(settings, steps):
    features, weight, target = batch(*LENGTHS)
    for epoch, update, warm in steps:
        criterion = make_criterion(epoch=epoch, update_num=update, **settings)
        for training in (True, False):
            player, sample = RecordedModel(features, weight), make_sample(target)
            loss, _, log = criterion.train(training)(player, sample)
            plain = warm and training
            assert (loss.item() == pytest.approx(log["ori_loss"].item())) == plain
            assert ("norm_loss" in log) == ("mem_mass" in log) == (not plain)


def test_warm_up_is_that_of_pytorch():
    features, weight, target = batch(*LENGTHS)
    criterion = make_criterion(ce_warmup_epoch=1).train()
    loss = criterion(RecordedModel(features, weight), make_sample(target))[0]
    logits = features.flatten(0, 1) @ weight.t()
    stock = torch.nn.functional.cross_entropy(logits, target.flatten(), ignore_index=PAD, reduction="sum")
    torch.testing.assert_close(loss, stock)
    grads = (torch.autograd.grad(each, features)[0] for each in (loss, stock))
    torch.testing.assert_close(*grads)


def test_sentence_average_divides_by_sentences():
    inputs = batch(*LENGTHS)
    _, sample_size, log, _ = run(*inputs, sentence_avg=True)
    assert (sample_size, log["sample_size"], log["ntokens"]) == (3, 3, 15)


def test_log_is_weighted_by_token():
    logs = [run(*batch(*lengths), report_accuracy=True)[2] for lengths in [(7, 3, 5), (2, 2)]]
    with metrics.aggregate() as aggregator:
        TrimeMtLoss.reduce_metrics(logs)
    values = aggregator.get_smoothed_values()
    for name in ("loss", "ori_loss"):
        expected = sum(log[name].item() for log in logs) / 19 / math.log(2)
        assert values[name] == pytest.approx(expected, abs=1e-3)
    assert values["norm_loss"] == values["loss"] < values["ori_loss"]
    assert values["ppl"] == pytest.approx(2 ** values["loss"], rel=1e-3)
    assert 0 < values["mem_mass"] < 1
    assert 0 < values["mem_share"] < 1
    assert values["accuracy"] == pytest.approx(
        100 * sum(log["n_correct"].item() for log in logs) / 19, abs=1e-3
    )


@pytest.mark.parametrize("model", [RecordedModel, ProjectingModel])
def test_accuracy_is_that_of_the_plain_softmax(model):
    features, weight, target = batch(*LENGTHS)
    weight = weight + torch.arange(9.0)[:, None]
    _, _, log, _ = run(features, weight, target, model, report_accuracy=True, ignore_prefix_size=1)
    best = (features @ weight.t()).argmax(-1)
    scored = target.ne(PAD) & torch.tensor([[t >= 1 for t in range(7)]])
    assert log["n_correct"].item() == (best.eq(target) & scored).sum().item()
    assert "n_correct" not in run(features, weight, target, model)[2]


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_model(dtype):
    features, weight, target = batch(8, 8, 5, width=32, types=50, dtype=torch.float32)
    truth, _, _, player = run(features, weight, target)
    (truth * 128).backward()
    expected = features.grad, player.decoder.output_projection.weight.grad
    half = features.detach().to(dtype).requires_grad_()
    loss, _, _, player = run(half, weight.to(dtype), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, truth, rtol=0.02, atol=0.0)
    # fairseq scales the loss before it runs backward in half precision.
    (loss * 128).backward()
    for grad, exact in zip((half.grad, player.decoder.output_projection.weight.grad), expected):
        assert grad.dtype == dtype
        rounding = 4 * torch.finfo(dtype).eps * exact.abs().max().item()
        torch.testing.assert_close(grad.float(), exact, rtol=0.0, atol=rounding)


@needs_half_on_cpu
def test_small_gradients_of_logits_do_not_vanish_in_half_precision(monkeypatch):
    """Of 60,000 types each has a probability below what float16 holds, and together 0.1% of the mass."""
    features = torch.ones(1, 2, 4, dtype=torch.float16).requires_grad_()
    weight = torch.full((60000, 4), -5.5, dtype=torch.float16)
    weight[2] = -1.0
    target = torch.tensor([[2, 2]])
    exact = features.detach().float().requires_grad_()
    run(exact, weight.float(), target)[0].backward()
    assert exact.grad.abs().min() > 0.003
    add_product = joint_loss.add_product
    # As on a GPU, where the factors of a product stay in half precision.
    monkeypatch.setattr(
        joint_loss, "add_product", lambda total, *two: add_product(total, *(t.half() for t in two))
    )
    run(features, weight, target)[0].backward()
    torch.testing.assert_close(features.grad.float(), exact.grad, rtol=0.02, atol=0.0)


def test_autocast_rounds_logits_alone():
    features, weight, target = batch(*LENGTHS, dtype=torch.float32)
    truth, _, plain, _ = run(features, weight, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, log, player = run(features, weight, target)
    loss.backward()
    assert log["ori_loss"] != plain["ori_loss"]
    torch.testing.assert_close(loss, truth, rtol=0.02, atol=0.0)
    assert features.grad.dtype == player.decoder.output_projection.weight.grad.dtype == torch.float32


def test_adaptive_softmax_is_refused_before_the_model_runs():
    features, weight, target = batch(*LENGTHS)
    player = RecordedModel(features, weight)
    player.decoder.adaptive_softmax = torch.nn.Identity()
    player.forward = None
    with pytest.raises(ValueError, match="--adaptive-softmax-cutoff, given or set by --arch"):
        make_criterion()(player, make_sample(target))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(label_smoothing=0.1), "--label-smoothing 0.1: trime_mt_loss has no label smoothing"),
        (dict(temp=0.0), "--temp must be"),
        (dict(temp=-1.0), "--temp must be"),
        (dict(topk_mem=0), "--topk-mem must be positive, not 0"),
        (dict(ignore_prefix_size=-1), "--ignore-prefix-size must not be negative: -1"),
        (dict(ce_warmup_epoch=-1), "--ce-warmup-epoch must not be negative: -1"),
        (dict(ce_warmup_ratio=1.5, max_update=9), "--ce-warmup-ratio must be at most 1, not 1.5"),
        (dict(ce_warmup_ratio=0.5), "--ce-warmup-ratio 0.5 is a share of --max-update, which is not given"),
        (dict(ddp_backend="pytorch_ddp", distributed_world_size=2), "--ddp-backend legacy_ddp"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        make_criterion(**settings)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(ce_warmup_epoch=1), "with a warm-up needs --task trime_translation"),
        (dict(ce_warmup_ratio=0.1, max_update=9), "with a warm-up needs --task trime_translation"),
        (dict(distributed_world_size=2), "on several devices needs --task trime_translation"),
    ],
)
def test_what_needs_our_task(setting, message):
    """Which knows where the training is, and gives a device without a batch none of another."""
    make_criterion(task=SimpleNamespace())
    with pytest.raises(ValueError, match=message):
        make_criterion(task=SimpleNamespace(), **setting)


def test_rows_of_a_batch():
    target = torch.tensor([[5, 6, PAD], [7, PAD, PAD], [8, 8, 8]]).numpy()
    rows = TargetRows.of(target, PAD, prefix=1)
    assert rows.tokens.tolist() == [0, 1, 3, 6, 7, 8]
    assert rows.scored.tolist() == [1, 7, 8]
    assert rows.intervals(before=10) == [(10, 12, 1), (12, 13, 0), (13, 16, 2)]
    assert TargetRows.of(torch.full((1, 1), PAD).numpy(), PAD).intervals(before=4) == [(4, 4, 0)]
