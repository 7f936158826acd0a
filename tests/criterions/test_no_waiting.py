"""A criterion's step asks the device for no number: it runs on the meta device, where there are none."""

from types import SimpleNamespace

import pytest
import torch
from fairseq.logging import metrics
from fairseq.modules import AdaptiveSoftmax
from fairseq.tasks.language_modeling import LanguageModelingTask

from tests import recorded_translation as translation
from tests.commands import HALF_ON_CPU
from tests.recorded import CRITERIONS, PAD, RecordedModel, make_criterion, make_order
from trime_fairseq.criterions import base, shared_memory
from trime_fairseq.criterions.summary import TrainingSummary
from trime_fairseq.data.planned import BatchLayout
from trime_fairseq.memory import linear_token_scores, token_softmax
from trime_fairseq.memory.token_scores import _MOST_KEPT
from trime_fairseq.tasks.trime_language_modeling import TrimeLanguageModelingTask

TRANSLATIONS = [
    dict(topk_mem=8),
    dict(topk_mem=8, dist_func="l2", ignore_prefix_size=1, report_accuracy=True),
    dict(dist_func="l2"),
    {},
]
ORDERS = {"trime_long_loss": make_order(train_mem_size=16)}


def batch(device, dtype=torch.float32, adaptive=True):
    """A model that plays 2 segments of 8 tokens of which 30 types, and the sample."""
    torch.manual_seed(1)
    softmax = AdaptiveSoftmax(30, 16, [10, 20], dropout=0.1).to(device, dtype) if adaptive else None
    features = torch.randn(2, 8, 16 if adaptive else 30).to(device, dtype).requires_grad_()
    representation = torch.randn(2, 8, 16).to(device, dtype).requires_grad_()
    target = torch.randint(4, 30, (2, 8))
    sample = {
        "net_input": {},
        "target": target.to(device),
        "host_target": target.numpy(),
        "ntokens": 16,
        "layout": BatchLayout(lengths=(8, 8), counts=(16,), member=0, number=0),
    }
    return RecordedModel(features, representation, softmax), sample


def step(name, device, temperature="1", **settings):
    model, sample = batch(device, **settings)
    criterion = make_criterion(name, order=ORDERS.get(name), train_softmax_temp=temperature).train()
    loss, _, log = criterion.to(device)(model, sample)
    loss.backward()
    return model, sample, log


@pytest.mark.skipif(not HALF_ON_CPU, reason="older releases lack operations on the meta device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("name", CRITERIONS)
def test_nothing_is_asked_of_the_device(name, adaptive, dtype):
    model, _, log = step(name, "meta", adaptive=adaptive, dtype=dtype)
    assert model.representation.grad.shape == (2, 8, 16)
    assert all(log[key].device.type == "meta" for key in ("loss", "ori_loss", "norm_loss", "mem_mass"))


@pytest.mark.skipif(not HALF_ON_CPU, reason="older releases lack operations on the meta device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_nor_by_a_learnt_temperature(dtype):
    _, _, log = step("trime_loss", "meta", temperature="learnt", dtype=dtype)
    assert log["softmax_temp"].device.type == "meta"


def test_summary_asks_the_device_no_more_than_fairseq_does(monkeypatch):
    """Of fairseq's own log, which is a number from the device for each of its values."""
    log = {name: torch.tensor(2.0) for name in ("loss", "ori_loss", "norm_loss", "mem_mass", "mem_share")}
    log.update(ntokens=3, nsentences=1, sample_size=3)
    criterion = make_criterion("trime_loss").train()
    task = object.__new__(TrimeLanguageModelingTask)
    task.summary = TrainingSummary()
    asked = []
    item = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: asked.append(tensor) or item(tensor))
    with metrics.aggregate(new_root=True):
        LanguageModelingTask.reduce_metrics(task, [log, log], criterion)
        stock = len(asked)
        assert stock >= 5
        task.reduce_metrics([log, log], criterion)
    assert len(asked) == 2 * stock
    assert "last epoch of training: loss 0.962 (" in task.summary.text()


def translation_step(device, **settings):
    """trime_mt_loss on a batch with padding."""
    features, weight = (torch.randn(*shape, 16, device=device) for shape in [(3, 8), (30,)])
    target = torch.randint(4, 30, (3, 8))
    target[0, 5:] = PAD
    model, sample = (
        translation.RecordedModel(features.requires_grad_(), weight),
        translation.make_sample(target),
    )
    sample["target"] = target.to(device)
    loss, _, log = translation.make_criterion(**settings)(model, sample)
    loss.backward()
    return features.grad, log


@pytest.mark.skipif(not HALF_ON_CPU, reason="older releases lack operations on the meta device")
@pytest.mark.parametrize("settings", TRANSLATIONS)
def test_translation_asks_nothing_of_the_device(settings):
    grad, log = translation_step("meta", **settings)
    assert grad.shape == (3, 8, 16)
    assert all(log[key].device.type == "meta" for key in ("loss", "ori_loss", "norm_loss", "mem_mass"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("settings", TRANSLATIONS)
def test_the_host_does_not_wait_in_translation(settings):
    translation_step("cuda", **settings)
    torch.cuda.set_sync_debug_mode("error")
    try:
        translation_step("cuda", **settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_without_targets_on_the_host_the_tails_have_to_ask():
    """What makes sure that the test above can fail."""
    model, sample = batch("meta")
    del sample["host_target"]
    with pytest.raises(NotImplementedError, match="nonzero"):
        make_criterion("trime_loss")(model, sample)


def test_a_large_vocabulary_asks_nothing(monkeypatch):
    features, weight = (
        torch.randn(n, 8, device="meta", requires_grad=True) for n in (600, _MOST_KEPT // 500)
    )
    monkeypatch.setattr(token_softmax, "_CHUNK", 2**27)
    a, b = linear_token_scores(features, weight, None, torch.zeros(600, dtype=torch.int64, device="meta"))
    (a - b).sum().backward()
    assert weight.grad.shape == weight.shape


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CRITERIONS)
def test_the_host_does_not_wait_for_the_device(name):
    step(name, "cuda")  # the first step measures implementations and fills caches
    model, sample = batch("cuda")
    criterion = make_criterion(name, order=ORDERS.get(name)).train()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss, _, _ = criterion(model, sample)
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_keys_travel_while_the_token_softmax_is_computed(monkeypatch):
    events = []
    start, scores = shared_memory.start_gather, base.token_scores

    def start_gather(*args):
        events.append("start")
        gathered = start(*args)

        def wait():
            events.append("wait")
            return gathered

        return SimpleNamespace(wait=wait)

    def token_scores(*args):
        events.append("token softmax")
        return scores(*args)

    monkeypatch.setattr(shared_memory, "start_gather", start_gather)
    monkeypatch.setattr(base, "token_scores", token_scores)
    step("trime_ext_loss", "cpu")
    assert events == ["start", "token softmax", "wait"]
