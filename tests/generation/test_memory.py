"""A memory beside a model: what fairseq's generators and scorers get from it."""

from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch
from fairseq import utils

from tests.commands import HALVES
from tests.generation.translations import (
    BEAM,
    CHECKPOINT,
    DIMENSION,
    batch_of,
    keys_of,
    make_folder,
    open_task,
)
from trime_fairseq.datastore import Retriever
from trime_fairseq.generation import LAMBDA_TYPES, ModelMemory, memory
from trime_fairseq.generation.memory import check_decoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("datastore"))


@pytest.fixture(scope="module")
def values(folder):
    return torch.from_numpy(np.fromfile(folder / "vals.npy", dtype=np.int64))


def attached(folder, models=1, generation=None, **settings):
    """Task and models with the memory that settings ask for, and a generator."""
    kind = settings.setdefault("knn_lambda_type", "trime")
    if kind == "fix":
        settings.setdefault("knn_lambda_value", 0.3)
    task, ensemble = open_task(folder, models, **settings)
    generator = task.build_generator(ensemble, Namespace(**(generation or BEAM)))
    return task, ensemble, generator


def expected(model, sample, keys, values, similarity, kind, k=8, temperature=10.0, weight=0.3):
    """Probabilities [B, L, V] in double precision, by exact search and the formulas as they stand."""
    with torch.no_grad():
        features, _ = type(model).forward(model, **sample["net_input"], features_only=True)
        logits = model.decoder.output_projection(features).double()
    features = features.double()
    if similarity == "ip":
        near, rows = (features @ keys.double().T).topk(k)
    else:
        near, rows = (-torch.cdist(features, keys.double()).square()).topk(k)
    net = logits.softmax(-1)
    scaled = near / (temperature * (1.0 if kind == "fix" else DIMENSION**0.5))
    shares = torch.zeros_like(net).scatter_add(2, values[rows], scaled.softmax(-1))
    if kind == "fix":
        return (1 - weight) * net + weight * shares
    of_memory = torch.sigmoid(scaled.logsumexp(-1) - logits.logsumexp(-1)).unsqueeze(-1)
    if kind == "trime":
        return (1 - of_memory) * net + of_memory * shares
    published = (1 - of_memory) * net + shares
    return published if kind == "trime-published" else published / (2 - of_memory)


SEARCHES = {
    "ip": dict(index_filename="flat_ip"),
    "exact ip": dict(index_filename="flat_ip", knn_sim_func="dot"),
    "l2": dict(index_filename="flat_l2", knn_sim_func="do_not_recomp_l2", no_load_keys=True),
    "exact l2": dict(index_filename="flat_l2", move_dstore_to_mem=True),
}


@pytest.mark.parametrize("kind", LAMBDA_TYPES)
@pytest.mark.parametrize("search", SEARCHES)
def test_distribution_of_model_and_neighbours(folder, values, search, kind):
    """All positions of the references, as fairseq's scorer asks for them."""
    task, (model,), _ = attached(folder, **SEARCHES[search], knn_lambda_type=kind)
    sample = batch_of(task)
    keys = torch.from_numpy(keys_of(folder).astype(np.float32))
    wanted = expected(model, sample, keys, values, search.split()[-1], kind)
    for log_probs in (True, False):
        with torch.no_grad():
            output = model(**sample["net_input"])
            found = model.get_normalized_probs(output, log_probs, sample)
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found.double().exp() if log_probs else found.double(), wanted, rtol=1e-4, atol=1e-8
        )


def test_distances_are_computed_again_from_the_keys(folder):
    """Approximate neighbours of an IVFPQ index, with exact distances or with Faiss's own."""
    found = []
    for function in (None, "l2", "do_not_recomp_l2"):
        task, (model,), _ = attached(folder, index_filename="knn_index_l2", probe=8, knn_sim_func=function)
        queries = torch.from_numpy(keys_of(folder)[:50].astype(np.float32) + 0.1)
        found.append(ModelMemory.of(model).retriever.search(queries))
    keys = torch.from_numpy(keys_of(folder).astype(np.float32))[found[0].rows]
    exact = -(keys - queries.unsqueeze(1)).square().sum(-1)
    for one in found[:2]:
        torch.testing.assert_close(one.scores, exact, rtol=1e-5, atol=1e-4)
    assert (found[2].scores - exact).abs().max() > 0.1


def test_model_is_as_before_when_detached(folder):
    task, (model,), _ = attached(folder)
    sample = batch_of(task)
    assert "get_normalized_probs" in vars(model)
    ModelMemory.of(model).detach()
    assert "get_normalized_probs" not in vars(model)
    assert not model.decoder.output_projection._forward_pre_hooks
    assert ModelMemory.of(model) is None
    with torch.no_grad():
        output = model(**sample["net_input"])
        assert torch.equal(
            model.get_normalized_probs(output, True), utils.log_softmax(output[0], dim=-1, onnx_trace=False)
        )


def test_one_search_a_step_for_the_whole_beam(folder, monkeypatch):
    task, (model,), generator = attached(folder)
    searched, steps = [], []
    search, forward = Retriever.search_faiss, model.decoder.forward
    monkeypatch.setattr(
        Retriever,
        "search_faiss",
        lambda self, queries: (searched.append(len(queries)), search(self, queries))[1],
    )
    model.decoder.forward = lambda tokens, **rest: (steps.append(len(tokens)), forward(tokens, **rest))[1]
    task.inference_step(generator, [model], batch_of(task))
    assert searched == steps
    assert searched[0] == 6 * 4
    assert searched[-1] < searched[0]  # finished sentences have left the batch


def test_memory_is_bounded_by_mixing_a_part_of_the_rows_at_a_time(folder, monkeypatch):
    task, (model,), _ = attached(folder)
    sample = batch_of(task)
    with torch.no_grad():
        whole = model.get_normalized_probs(model(**sample["net_input"]), True)
        monkeypatch.setattr(memory, "_MIXED", 7 * whole.size(-1))
        pieces = model.get_normalized_probs(model(**sample["net_input"]), True)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-6)


def test_last_position_of_a_decoder_that_is_not_incremental(folder):
    task, (model,), _ = attached(folder)
    sample = batch_of(task)
    with torch.no_grad():
        whole = model.get_normalized_probs(model(**sample["net_input"]), True)
        logits, extra = model(**sample["net_input"])
        last = model.get_normalized_probs((logits[:, -1:], extra), True)
    torch.testing.assert_close(last, whole[:, -1:], rtol=0, atol=1e-5)


def test_logits_of_another_pass_are_an_error(folder):
    task, (model,), _ = attached(folder)
    sample = batch_of(task)
    with torch.no_grad():
        output = model(**sample["net_input"])
        with pytest.raises(RuntimeError, match="one forward pass"):
            model.get_normalized_probs((output[0][:, :3],), True)
        with pytest.raises(RuntimeError, match="did not reach"):
            model.get_normalized_probs(output, True)


def test_generators_of_one_model_share_its_memory(folder):
    """As those that fairseq's hub makes, one for each call."""
    task, models, _ = attached(folder)
    first = ModelMemory.of(models[0])
    assert first.divided_by == 1.0
    task.build_generator(models, Namespace(**BEAM, temperature=0.5))
    assert ModelMemory.of(models[0]) is first
    assert first.divided_by == 0.5
    task.build_generator(models, Namespace(score_reference=True, temperature=0.5))
    assert first.divided_by == 1.0


def test_a_generator_with_other_settings_has_another_memory(folder):
    """Not that of the first, without a word."""
    task, models, _ = attached(folder)
    first = ModelMemory.of(models[0])
    task.config = replace(task.config, k=task.config.k + 1, knn_temperature_value=20.0)
    task.build_generator(models, Namespace(**BEAM))
    second = ModelMemory.of(models[0])
    assert second.mixture.scale == pytest.approx(first.mixture.scale / 2)
    assert second.retriever.k == first.retriever.k + 1
    assert len(models[0].decoder.output_projection._forward_pre_hooks) == 1
    second.detach()
    assert "get_normalized_probs" not in vars(models[0])


def test_temperature_of_the_generator(folder):
    """It sharpens the model; the neighbours' weight is that of the model's own logits."""
    cold, (model,), generator = attached(folder, generation={**BEAM, "temperature": 0.5})
    sample = batch_of(cold, 1)
    inputs = sample["net_input"]
    with torch.no_grad():
        tokens = inputs["prev_output_tokens"][:, :1]
        encoded = generator.model.forward_encoder(inputs)
        found, _ = generator.model.forward_decoder(tokens, encoded, [{}], 0.5)
        features, _ = model.decoder(tokens, encoder_out=encoded[0], features_only=True)
        logits = model.decoder.output_projection(features)[:, 0]
    near = ModelMemory.of(model).retriever.search(features[:, 0])
    ModelMemory.of(model).detach()
    memory_lse = (near.scores.double() / 10 / DIMENSION**0.5).logsumexp(1)
    share = torch.sigmoid(memory_lse - logits.double().logsumexp(1)).item()
    others = torch.ones(logits.size(1), dtype=torch.bool)
    others[near.tokens.flatten()] = False
    sharpened = (logits.double() / 0.5).softmax(1)
    torch.testing.assert_close(
        found.double().exp()[0, others], (1 - share) * sharpened[0, others], rtol=1e-4, atol=1e-12
    )


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", ["trime", "fix"])
def test_half_precision(folder, values, kind, dtype):
    """The model's numbers are of half precision, the distribution is float32 and sums to one."""
    task, (model,), generator = attached(folder, knn_lambda_type=kind)
    sample = batch_of(task)
    model.to(dtype)
    with torch.no_grad():
        output = model(**sample["net_input"])
        assert output[0].dtype == dtype
        found = model.get_normalized_probs(output, False)
    assert found.dtype == torch.float32
    total = found.double().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-5, atol=0)
    hypotheses = task.inference_step(generator, [model], sample)
    assert all(torch.isfinite(one["positional_scores"]).all() for found in hypotheses for one in found)


def test_neighbours_that_faiss_does_not_find(folder, tmp_path):
    """One list is visited, of fewer keys than k: the rest of the row is missing."""
    keys = keys_of(folder).astype(np.float32)
    index = faiss.index_factory(DIMENSION, "IVF512,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(keys)
    index.add(keys)
    faiss.write_index(index, str(tmp_path / "sparse"))
    settings = dict(indexfile=str(tmp_path / "sparse"), index_filename=None, probe=1, k=64)
    task, (model,), generator = attached(folder, **settings)
    sample = batch_of(task)
    with torch.no_grad():
        found = model.get_normalized_probs(model(**sample["net_input"]), False)
    near = ModelMemory.of(model).retriever.search(torch.from_numpy(keys[:100]))
    assert (near.tokens < 0).any()
    total = found.double().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-5, atol=0)
    assert task.inference_step(generator, [model], sample)


def test_decoders_that_no_memory_can_join():
    with pytest.raises(ValueError, match="adaptive softmax"):
        check_decoder(SimpleNamespace(adaptive_softmax=object()))

    class Pointer(torch.nn.Module):
        def get_normalized_probs(self, net_output, log_probs, sample=None):
            return net_output

    with pytest.raises(ValueError, match="Pointer computes probabilities in a way of its own"):
        check_decoder(Pointer())


def test_checkpoint_of_an_adaptive_softmax_is_named(folder):
    task, models = open_task(folder)
    models[0].decoder.adaptive_softmax = torch.nn.Identity()
    with pytest.raises(ValueError, match=f"--use-knn-datastore: --path {CHECKPOINT}: .* adaptive softmax"):
        task.build_generator(models, Namespace(**BEAM))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kind", LAMBDA_TYPES)
def test_on_a_gpu(folder, kind):
    """The model on the GPU, the index on the CPU: the distribution of the CPU."""
    task, (model,), generator = attached(folder, knn_lambda_type=kind, use_faiss_cpu=True)
    sample = batch_of(task)
    with torch.no_grad():
        wanted = model.get_normalized_probs(model(**sample["net_input"]), True)
        model.cuda()
        there = utils.move_to_cuda(sample)
        found = model.get_normalized_probs(model(**there["net_input"]), True)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-3, atol=1e-3)
    assert task.inference_step(generator, [model], there)
