"""Which indexes can be made, and that the default is the published one."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from trime_fairseq.datastore import DatastoreError, IndexConfig, IndexManifest

from .small_stores import (
    CONFIG,
    DIMENSION,
    ROWS,
    build,
    small_rows,
    stored,
)

faiss = pytest.importorskip("faiss")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"code_size": 5}, "`code_size` 5"),
        ({"code_size": 0}, "`code_size` 0"),
        ({"ncentroids": 0}, "`ncentroids` must be positive, not 0"),
        ({"factory": "IVF8,Nonsense"}, "`factory` IVF8,Nonsense"),
        ({"factory": "IVF8,PQ7"}, "`factory` IVF8,PQ7"),
        ({"metric": "l1"}, "`metric` l1"),
        ({"training_keys": 0}, "`training_keys`"),
    ],
)
def test_impossible_index(settings, named):
    given = {"metric": "l2", "dimension": DIMENSION, "code_size": 4, **settings}
    with pytest.raises(DatastoreError, match=named):
        IndexConfig.create(**given)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ncentroids": ROWS + 1}, "`ncentroids`"),
        ({"ncentroids": 300, "training_keys": 299}, "`training_keys` 299"),
        # A code of 8 bits needs 256 keys.
        ({"ncentroids": 8, "training_keys": 255}, "`ncentroids` or another `factory`"),
    ],
)
def test_too_few_keys(tmp_path, settings, named):
    stored(tmp_path)
    with pytest.raises(DatastoreError, match=named):
        build(tmp_path, IndexConfig.create("ip", DIMENSION, code_size=4, **settings))


@pytest.mark.parametrize("metric", ["l2", "ip", "cos"])
def test_default_is_the_published_index(metric):
    config = IndexConfig.create(metric, DIMENSION, ncentroids=8, code_size=4)
    keys = small_rows(dtype="float32")[0]
    measure, flat = (
        (faiss.METRIC_L2, faiss.IndexFlatL2)
        if metric == "l2"
        else (faiss.METRIC_INNER_PRODUCT, faiss.IndexFlatIP)
    )
    published = faiss.IndexIVFPQ(flat(DIMENSION), DIMENSION, 8, 4, 8, measure)
    ours = config.new_index()
    for index in (published, ours):
        index.train(keys)
        index.add(keys)
    assert np.array_equal(faiss.serialize_index(ours), faiss.serialize_index(published))
    assert IndexConfig.create("l2", 128).factory == "IVF4096,PQ64"


def test_cosine_normalises(tmp_path):
    stored(tmp_path)
    index = faiss.read_index(build(tmp_path, replace(CONFIG, metric="cos", factory="Flat")))
    keys = small_rows(dtype="float16")[0].astype(np.float32)
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    np.testing.assert_allclose(index.reconstruct_n(0, ROWS), unit, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("factory", ["IVF8,PQ4", "OPQ4_16,IVF8,PQ4", "IDMap,Flat"])
def test_starting_point(tmp_path, factory):
    stored(tmp_path)
    config = replace(CONFIG, factory=factory)
    path = build(tmp_path, config, starting_point=450)
    index = faiss.read_index(path)
    keys = small_rows()[0].astype(np.float32)
    found = index.search(keys, index.ntotal)[1]
    assert index.ntotal == ROWS - 450
    assert found[found >= 0].min() == 450
    # A key is among the nearest to itself.
    assert np.mean([row in near[:50] for row, near in list(enumerate(found))[450:]]) > 0.9
    assert (IndexManifest.read(path).starting_point, IndexManifest.read(path).rows) == (450, ROWS - 450)


@pytest.mark.parametrize(
    ("factory", "point"), [("HNSW8", 5), ("PCA8,Flat", 5), ("IVF8,PQ4", ROWS), ("IVF8,PQ4", -1)]
)
def test_impossible_starting_point(tmp_path, factory, point):
    stored(tmp_path)
    with pytest.raises(DatastoreError, match="`starting_point`|another `factory`"):
        build(tmp_path, replace(CONFIG, factory=factory), starting_point=point)


def test_faiss_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(DatastoreError, match="pip install faiss-cpu"):
        IndexConfig.create("l2", DIMENSION, code_size=4)
