"""Search against brute force, over index types and metrics."""

from functools import cache

import faiss
import numpy as np
import pytest
import torch

from trime_fairseq.datastore import (
    Datastore,
    DatastoreError,
    Index,
    IndexConfig,
    RecallSample,
    Retriever,
    open_index,
)
from trime_fairseq.datastore.recall import exact_search
from trime_fairseq.datastore.retriever import nearest_of

N, D, K = 3000, 32, 20
# (Faiss factory string, smallest share of the true neighbours it must find)
FACTORIES = [
    ("Flat", 1.0),
    ("IVF16,Flat", 1.0),
    ("HNSW16,Flat", 0.9),
    ("IVF16,PQ16", 0.5),
    ("OPQ16,IVF16,PQ16x4", 0.3),
    ("IVF16_HNSW8,PQ16", 0.5),
    ("IVF16,PQ16x4fs", 0.3),
    ("SQfp16", 0.95),
]


@cache
def small_store():
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((40, D))
    keys = centres[generator.integers(40, size=N)] + 0.4 * generator.standard_normal((N, D))
    return Datastore("toy", generator.integers(100, size=N), keys.astype(np.float16), D, None)


@pytest.fixture
def store():
    return small_store()


@pytest.fixture
def queries(store):
    generator = torch.Generator().manual_seed(3)
    return torch.from_numpy(np.array(store.keys[::40], dtype=np.float32)) + 0.2 * torch.randn(
        N // 40, D, generator=generator
    )


@cache
def build(factory, metric):
    """An index of the store; for all tests, so only a copy may be changed, as ``loaded`` makes it."""
    keys = np.array(small_store().keys, dtype=np.float32)
    if metric == "cos":
        faiss.normalize_L2(keys)
    index = IndexConfig(metric, D, factory).new_index()
    if factory.startswith("OPQ"):
        # By default it takes 50 rounds for the rotation, which is most of the time of these tests.
        faiss.downcast_VectorTransform(index.chain.at(0)).niter = 5
    index.train(keys)
    index.add(keys)
    return index


def loaded(tmp_path, index, metric):
    faiss.write_index(index, str(tmp_path / "index"))
    return open_index(str(tmp_path / "index"), metric=metric)


def brute_force(store, queries, metric):
    keys = torch.from_numpy(np.array(store.keys, dtype=np.float64))
    queries = queries.double()
    if metric == "l2":
        return -torch.cdist(queries, keys, compute_mode="donot_use_mm_for_euclid_dist").square()
    if metric == "cos":
        keys, queries = (x / x.norm(dim=1, keepdim=True) for x in (keys, queries))
    return queries @ keys.t()


@pytest.mark.parametrize("metric", ["ip", "l2", "cos"])
@pytest.mark.parametrize(("factory", "recall"), FACTORIES)
def test_neighbors_are_those_of_brute_force(tmp_path, store, queries, factory, recall, metric):
    index = loaded(tmp_path, build(factory, metric), metric)
    retriever = Retriever(index, store, k=K, probe=16, similarity=metric)
    scores, tokens, rows = retriever.search(queries)
    truth = brute_force(store, queries, metric)
    exact = truth.topk(K).indices
    found = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(rows, exact)])
    assert found >= recall - 1e-3 * (recall == 1.0)  # ties in half precision
    # Scores are computed from the keys, whatever the index approximates.
    assert torch.allclose(scores.double(), truth.gather(1, rows), atol=1e-4)
    assert torch.equal(tokens, torch.from_numpy(store.values)[rows])
    assert np.array_equal(exact_search(store, queries.numpy(), 1, metric)[:, 0], exact[:, 0])


@pytest.mark.parametrize("metric", ["ip", "cos", "l2"])
def test_scores_of_faiss_as_they_come(tmp_path, store, queries, metric):
    similarity = "do_not_recomp_l2" if metric == "l2" else None
    without_keys = Datastore("toy", store.values, None, D, None)
    index = loaded(tmp_path, build("Flat", metric), metric)
    retriever = Retriever(index, without_keys, k=K, similarity=similarity)
    truth = brute_force(store, queries, metric).topk(K)
    assert torch.allclose(retriever.search(queries).scores.double(), truth.values, atol=2e-3)


@pytest.mark.parametrize("factory", ["IVF16,PQ16", "OPQ16,IVF16,PQ16x4"])
@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_result_does_not_depend_on_the_batch(tmp_path, store, queries, factory, metric):
    index = loaded(tmp_path, build(factory, metric), metric)
    retriever = Retriever(index, store, k=K, probe=5)
    whole = retriever.search(queries)
    for size in (1, 7, 33):
        pieces = [retriever.search(piece) for piece in queries.split(size)]
        assert torch.equal(torch.cat([piece.rows for piece in pieces]), whole.rows)
        assert torch.allclose(torch.cat([piece.scores for piece in pieces]), whole.scores, rtol=1e-6)


def test_fewer_neighbors_than_wanted(tmp_path, store, queries):
    index = loaded(tmp_path, build("IVF256,Flat", "ip"), "ip")
    scores, tokens, rows = Retriever(index, store, k=500, probe=1).search(queries)
    missing = rows < 0
    assert missing.any()
    assert not missing.all()
    assert torch.equal(missing, scores == -torch.inf)
    assert torch.equal(missing, tokens == -1)


def test_keys_in_memory_and_half_precision_queries(tmp_path, store, queries):
    index = loaded(tmp_path, build("Flat", "l2"), "l2")
    mapped = Retriever(index, store, k=K).search(queries.half())
    kept = Retriever(index, store, k=K, keys_in_memory=True).search(queries.half())
    assert torch.equal(mapped.scores, kept.scores)
    assert torch.allclose(
        mapped.scores.double(), brute_force(store, queries.half(), "l2").topk(K).values, atol=1e-4
    )


@pytest.mark.parametrize("largest", [True, False])
def test_parts_of_an_index_are_merged(largest):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 12, generator=generator)
    rows = torch.arange(60).view(5, 12)
    parts = []
    for columns in (slice(0, 5), slice(5, 12)):
        best, place = scores[:, columns].topk(4, largest=largest)
        parts.append((best, rows[:, columns].gather(1, place)))
    parts[0][1][2, 3] = -1  # one part found less
    best, found = nearest_of(parts, 4, largest)
    expected = scores.topk(4, largest=largest)
    whole = [0, 1, 3, 4]
    assert torch.equal(best[whole], expected.values[whole])
    assert torch.equal(found[whole], rows.gather(1, expected.indices)[whole])
    assert -1 not in found[2]


def test_recall_of_a_sample(store, queries):
    sample = RecallSample(store, "ip", size=10, tokens=len(queries))
    exact = torch.from_numpy(exact_search(store, queries.numpy(), 4, "ip"))
    spoiled = exact.clone()
    spoiled[:, 2:] = -1  # two of four found
    sample.add(queries[:30], spoiled[:30])
    sample.add(queries[30:], spoiled[30:])
    assert sample.report() == {"recall_at_1": 1.0, "recall_at_k": 0.5, "recall_queries": 10}


def test_recall_of_a_sample_rarer_than_batches(store, queries):
    sample = RecallSample(store, "ip", size=3, tokens=3 * 75)
    exact = torch.from_numpy(exact_search(store, queries.numpy(), 4, "ip"))
    for _ in range(3):
        for begin in range(0, 75, 7):
            sample.add(queries[begin : begin + 7], exact[begin : begin + 7])
    assert sample.report()["recall_queries"] == 3


def test_refusals(store):
    index = Index("toy.ip", build("Flat", "ip"), None, "ip")
    with pytest.raises(DatastoreError, match=r"`k` 4,000 exceeds the datastore toy of 3,000 rows"):
        Retriever(index, store, k=4000)
    with pytest.raises(DatastoreError, match="`k` 2500 .* exceed the 2048 .*`devices`"):
        Retriever(index, store, k=2500, devices=(0,))
    without_keys = Datastore("toy", store.values, None, D, None)
    with pytest.raises(DatastoreError, match="`similarity` ip .* are not stored: pass `similarity`"):
        Retriever(index, without_keys, k=5, similarity="ip")
    squared = Index("toy.l2", build("Flat", "l2"), None, "l2")
    with pytest.raises(DatastoreError, match="`similarity` l2 .* are not loaded: leave out `load_keys`"):
        Retriever(squared, store, k=5, load_keys=False)
    with pytest.raises(DatastoreError, match="needs the keys"):
        RecallSample(without_keys, "ip", 10, 100)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.skipif(not hasattr(faiss, "StandardGpuResources"), reason="needs a Faiss with GPU support")
@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "IVF16,PQ16"])
def test_gpu_finds_what_the_cpu_finds(tmp_path, store, queries, factory):
    index = loaded(tmp_path, build(factory, "ip"), "ip")
    there = Retriever(index, store, k=K, probe=16).search(queries)
    here = Retriever(index, store, k=K, probe=16, devices=(0,)).search(queries.cuda())
    assert here.scores.is_cuda
    for piece in queries.cuda().split(7):  # the index on the CPU, the model on the GPU
        mixed = Retriever(index, store, k=K, probe=16).search(piece)
        assert torch.equal(mixed.rows.cpu(), Retriever(index, store, k=K).search(piece.cpu()).rows)
    agreement = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(there.rows, here.rows.cpu())])
    assert agreement > 0.95
