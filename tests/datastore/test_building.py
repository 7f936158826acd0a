import json
import logging
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trime_fairseq.cli.build_index import main
from trime_fairseq.datastore import growing_index
from trime_fairseq.datastore.building import build_index
from trime_fairseq.datastore.index_config import IndexConfig, IndexSidecar
from trime_fairseq.datastore.layout import DatastoreError, open_datastore
from trime_fairseq.files import Lock

from .small_stores import (
    CHUNK,
    CONFIG,
    DIMENSION,
    ROOT,
    ROWS,
    build,
    finished_files,
    killed_at,
    left_over,
    operations,
    run_killed,
    small_rows,
    stored,
)

faiss = pytest.importorskip("faiss")
REFERENCE = ROOT / "tests" / "reference" / "datastore"


def ids_of(index):
    lists = faiss.extract_index_ivf(index).invlists
    rows = [
        faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i))
        for i in range(lists.nlist)
        if lists.list_size(i)
    ]
    return np.sort(np.concatenate(rows))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"code_size": 5}, "--code_size 5"),
        ({"code_size": 0}, "--code_size 0"),
        ({"ncentroids": 0}, "--ncentroids 0"),
        ({"factory": "IVF8,Nonsense"}, "--factory IVF8,Nonsense"),
        ({"factory": "IVF8,PQ7"}, "--factory IVF8,PQ7"),
        ({"metric": "l1"}, "--dist l1"),
        ({"training_keys": 0}, "--num_training_keys"),
    ],
)
def test_impossible_index(settings, named):
    given = {"metric": "l2", "dimension": DIMENSION, "code_size": 4, **settings}
    with pytest.raises(DatastoreError, match=named):
        IndexConfig.create(**given)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ncentroids": ROWS + 1}, "--ncentroids"),
        ({"ncentroids": 300, "training_keys": 299}, "--num_training_keys 299"),
        # A code of 8 bits needs 256 keys.
        ({"ncentroids": 8, "training_keys": 255}, "--ncentroids or another --factory"),
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


def test_index_and_description(tmp_path):
    store = open_datastore(stored(tmp_path))
    path = build(tmp_path, probe=3)
    index = faiss.read_index(path)
    assert path == str(tmp_path / "knn.l2")
    assert np.array_equal(ids_of(index), np.arange(ROWS))
    assert index.nprobe == 3
    sidecar = IndexSidecar.read(path)
    assert (sidecar.metric, sidecar.dimension, sidecar.rows, sidecar.starting_point) == (
        "l2",
        DIMENSION,
        ROWS,
        0,
    )
    assert sidecar.datastore == store.fingerprint()
    assert (sidecar.probe, sidecar.complete, sidecar.faiss_version) == (3, True, faiss.__version__)
    assert (sidecar.key_type, sidecar.dictionary_hash) == ("last_ffn_input", "words")
    assert (sidecar.checkpoint_hash, sidecar.data_hash) == ("model", "text")
    assert left_over(tmp_path) == []


def test_cosine_normalises(tmp_path):
    stored(tmp_path)
    index = faiss.read_index(build(tmp_path, replace(CONFIG, metric="cos", factory="Flat")))
    keys = small_rows(dtype="float16")[0].astype(np.float32)
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    np.testing.assert_allclose(index.reconstruct_n(0, ROWS), unit, rtol=1e-5, atol=1e-7)


def test_trained_index_is_used_again(tmp_path, monkeypatch):
    stored(tmp_path)
    trained = Path(build(tmp_path, train_only=True))
    assert trained.name == "knn.l2.trained"
    assert not (tmp_path / "knn.l2").exists()
    with monkeypatch.context() as patch:
        patch.setattr(growing_index, "train", None)
        build(tmp_path)
    assert IndexSidecar.read(str(tmp_path / "knn.l2")).training_seconds > 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 2}, "seed 1 / 2"),
        ({"factory": "IVF4,PQ4"}, "factory"),
        ({"training_keys": 300}, "training_keys"),
    ],
)
def test_other_trained_index_is_not_used(tmp_path, caplog, change, named):
    stored(tmp_path)
    build(tmp_path, train_only=True)
    before = (tmp_path / "knn.l2.trained").read_bytes()
    with caplog.at_level(logging.INFO):
        build(tmp_path, replace(CONFIG, **change))
    assert "training again" in caplog.text
    assert named in caplog.text
    assert (tmp_path / "knn.l2.trained").read_bytes() != before


def test_trained_index_of_another_store_is_not_used(tmp_path, caplog):
    stored(tmp_path)
    build(tmp_path, train_only=True)
    stored(tmp_path, checkpoint_hash="another")
    with caplog.at_level(logging.INFO):
        build(tmp_path)
    assert "training again" in caplog.text
    assert "datastore" in caplog.text


def test_finished_index_is_left_alone(tmp_path, caplog):
    stored(tmp_path)
    path = Path(build(tmp_path))
    before = path.stat().st_mtime_ns, path.stat().st_ino
    with caplog.at_level(logging.INFO):
        build(tmp_path, chunk=2 * CHUNK)
    assert "is there already" in caplog.text
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_other_probe_in_a_finished_index(tmp_path):
    stored(tmp_path)
    path = build(tmp_path, probe=3)
    lists = ids_of(faiss.read_index(path))
    build(tmp_path, probe=5)
    assert faiss.read_index(path).nprobe == 5
    assert IndexSidecar.read(path).probe == 5
    assert np.array_equal(ids_of(faiss.read_index(path)), lists)
    assert left_over(tmp_path) == []


def test_other_index_is_replaced_at_the_end(tmp_path, monkeypatch, caplog):
    stored(tmp_path)
    path = Path(build(tmp_path))
    before, description = path.read_bytes(), IndexSidecar.read(str(path))
    other = replace(CONFIG, factory="IVF4,PQ4")
    with caplog.at_level(logging.INFO):
        assert killed_at(monkeypatch, lambda: build(tmp_path, other), 15)
    assert "factory IVF8,PQ4 / IVF4,PQ4" in caplog.text
    assert (tmp_path / "knn.l2.partial").exists()
    assert (path.read_bytes(), IndexSidecar.read(str(path))) == (before, description)
    build(tmp_path, other)
    assert faiss.read_index(str(path)).nlist == 4
    assert IndexSidecar.read(str(path)).factory == "IVF4,PQ4"


def test_description_is_always_that_of_the_index(tmp_path, monkeypatch):
    stored(tmp_path)
    configs = [replace(CONFIG, factory=f"IVF{lists},Flat") for lists in (4, 8)]
    for config in configs:
        build(tmp_path, config, train_only=True)
    build(tmp_path, configs[0])
    count = operations(monkeypatch, lambda: build(tmp_path, configs[1], chunk=ROWS))
    described = []
    for event in range(1, count + 1):
        build(tmp_path, configs[0])
        assert killed_at(monkeypatch, lambda: build(tmp_path, configs[1], chunk=ROWS), event)
        there = IndexSidecar.read(str(tmp_path / "knn.l2"))
        lists = faiss.read_index(str(tmp_path / "knn.l2")).nlist
        described.append(there and there.factory)
        assert described[-1] in (None, f"IVF{lists},Flat")
    assert {"IVF4,Flat", "IVF8,Flat"} <= set(described)


def test_half_built_index_of_something_else(tmp_path, monkeypatch, caplog):
    stored(tmp_path)
    assert killed_at(monkeypatch, lambda: build(tmp_path), 15)
    assert (tmp_path / "knn.l2.partial").exists()
    with caplog.at_level(logging.INFO):
        build(tmp_path, chunk=CHUNK // 2)
    assert "starting anew: chunk 200 / 100" in caplog.text
    assert np.array_equal(ids_of(faiss.read_index(str(tmp_path / "knn.l2"))), np.arange(ROWS))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The files of an index that was built in one go."""
    folder = tmp_path_factory.mktemp("built")
    stored(folder)
    build(folder)
    return finished_files(folder)


def test_killed_before_any_file_operation(tmp_path, monkeypatch, built, caplog):
    stored(tmp_path)
    count = operations(monkeypatch, lambda: build(tmp_path))
    continued = set()
    for event in range(1, count + 1):
        _remove_index(tmp_path)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert killed_at(monkeypatch, lambda: build(tmp_path), event)
            build(tmp_path)
        assert finished_files(tmp_path) == built, event
        assert IndexSidecar.read(str(tmp_path / "knn.l2")).complete
        assert left_over(tmp_path) == []
        continued |= {r.message.rsplit("row ")[-1] for r in caplog.records if "continuing" in r.message}
    assert continued == {f"{row:,}" for row in [*range(CHUNK, ROWS, CHUNK), ROWS]}


def test_kill_9(tmp_path, built):
    stored(tmp_path)
    kills, log = run_killed("build", tmp_path, seed=1)
    assert kills  # how many, before the program ends, depends on the machine
    assert finished_files(tmp_path) == built
    assert left_over(tmp_path) == []


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
    assert (IndexSidecar.read(path).starting_point, IndexSidecar.read(path).rows) == (450, ROWS - 450)


def test_starting_point_continues(tmp_path, monkeypatch):
    stored(tmp_path)
    whole = Path(build(tmp_path, starting_point=450)).read_bytes()
    _remove_index(tmp_path)
    assert killed_at(monkeypatch, lambda: build(tmp_path, starting_point=450), 12)
    assert (tmp_path / "knn.l2.partial").exists()
    assert Path(build(tmp_path, starting_point=450)).read_bytes() == whole


@pytest.mark.parametrize(
    ("factory", "point"), [("HNSW8", 5), ("PCA8,Flat", 5), ("IVF8,PQ4", ROWS), ("IVF8,PQ4", -1)]
)
def test_impossible_starting_point(tmp_path, factory, point):
    stored(tmp_path)
    with pytest.raises(DatastoreError, match="--starting_point|another --factory"):
        build(tmp_path, replace(CONFIG, factory=factory), starting_point=point)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_keys_that_are_no_numbers(tmp_path, number):
    keys = small_rows()[0]
    keys[1234, 3] = number
    stored(tmp_path, keys)
    everything = replace(CONFIG, training_keys=ROWS)
    # Found among the keys for training, and among those to add.
    for config in (everything, replace(CONFIG, factory="IVF4,Flat", training_keys=4)):
        with pytest.raises(DatastoreError, match="rows 1234"):
            build(tmp_path, config)
    assert not (tmp_path / "knn.l2").exists()


def test_stores_without_keys(tmp_path):
    prefix = stored(tmp_path, complete=False)
    with pytest.raises(DatastoreError, match="not complete"):
        build(tmp_path)
    stored(tmp_path, keys_stored=False)
    with pytest.raises(DatastoreError, match="--streaming"):
        build_index(replace(open_datastore(prefix), keys=None), CONFIG, str(tmp_path / "knn"))


def test_other_dimension(tmp_path):
    stored(tmp_path)
    with pytest.raises(DatastoreError, match="dimension 16, not 32"):
        build(tmp_path, replace(CONFIG, dimension=32))


def test_two_builders(tmp_path):
    stored(tmp_path)
    lock = Lock(str(tmp_path / "knn.l2.lock"))
    assert lock.acquire()
    with pytest.raises(DatastoreError, match="another process"):
        build(tmp_path)
    lock.release()
    build(tmp_path)


@pytest.mark.parametrize(("setting", "named"), [("chunk", "--num_keys_to_add"), ("probe", "--probe")])
def test_impossible_numbers(tmp_path, setting, named):
    stored(tmp_path)
    with pytest.raises(DatastoreError, match=named):
        build(tmp_path, **{setting: 0})


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this Faiss has GPUs")
def test_no_gpu(tmp_path):
    stored(tmp_path)
    with pytest.raises(DatastoreError, match="--use_gpu"):
        build(tmp_path, use_gpu=True)


def test_files_that_are_no_descriptions(tmp_path):
    stored(tmp_path)
    path = build(tmp_path)
    (tmp_path / "knn.l2.json").write_text("{}")
    with pytest.raises(DatastoreError, match="knn.l2.json does not describe"):
        build(tmp_path)
    (tmp_path / "knn.l2.json").write_text(json.dumps({"factory": "Flat", "format_version": 99}))
    with pytest.raises(DatastoreError, match="update"):
        IndexSidecar.read(path)


def test_faiss_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(DatastoreError, match="pip install faiss-cpu"):
        IndexConfig.create("l2", DIMENSION, code_size=4)


def test_command_on_a_published_store(tmp_path):
    words = (
        "--dimension 96 --dstore-fp16 --dstore_size 20000 --dist ip --ncentroids 16 --code-size 8 --probe 4"
    )
    words += " --num_training_keys 1000 --num_keys_to_add_at_a_time 7000"
    files = ["--dstore_mmap", REFERENCE / "dstore", "--faiss_index", tmp_path / "knn"]
    command = [sys.executable, ROOT / "scripts" / "build_dstore.py", *files, *words.split()]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=tmp_path, timeout=300)
    index = faiss.read_index(str(tmp_path / "knn.ip"))
    assert (index.ntotal, index.metric_type, index.nlist, index.nprobe) == (20000, 0, 16, 4)
    keys = (
        np.fromfile(REFERENCE / "dstore-fp16_keys.npy", np.float16).reshape(-1, 96)[:200].astype(np.float32)
    )
    stored_keys = (
        np.fromfile(REFERENCE / "dstore-fp16_keys.npy", np.float16).reshape(-1, 96).astype(np.float32)
    )
    index.nprobe = 16
    found, nearest = index.search(keys, 100)[1], (keys @ stored_keys.T).argmax(axis=1)
    assert np.mean([row in near for row, near in zip(nearest, found)]) > 0.5


def arguments(folder, *more):
    files = ["--dstore-mmap", str(folder / "dstore"), "--faiss-index", str(folder / "knn")]
    return [*files, "--ncentroids", "8", "--code-size", "4", *more]


def test_command_takes_the_advice_of_the_manifest(tmp_path):
    stored(tmp_path, metric="cos")
    assert main(arguments(tmp_path)) == 0
    assert (tmp_path / "knn.cos").exists()
    assert main(arguments(tmp_path, "--dist", "l2", "--do_train_only")) == 0
    assert (tmp_path / "knn.l2.trained").exists()


def test_command_without_a_manifest(tmp_path, capsys):
    stored(tmp_path)
    (tmp_path / "dstore.json").unlink()
    assert main(arguments(tmp_path, "--dstore_fp16", "--dimension", "16", "--factory", "IVF4,Flat")) == 0
    assert IndexSidecar.read(str(tmp_path / "knn.l2")).factory == "IVF4,Flat"
    assert main(arguments(tmp_path, "--dimension", "16")) == 1
    assert "pass --dstore-fp16" in capsys.readouterr().err


def test_command_errors_are_one_line(tmp_path, capsys):
    stored(tmp_path)
    assert main(arguments(tmp_path, "--code_size", "5")) == 1
    error = capsys.readouterr().err
    assert error.startswith("trime-build-index: error: --code_size 5")
    assert error.count("\n") == 1
    with pytest.raises(SystemExit):
        main(arguments(tmp_path, "--max-tokens", "512"))
    assert "unrecognized arguments: --max-tokens 512" in capsys.readouterr().err


def test_command_passes_flags_on(tmp_path, monkeypatch):
    calls = []
    module = types.ModuleType("streaming")
    module.stream = lambda args, rest: calls.append((args.faiss_index, rest)) or 3
    monkeypatch.setitem(sys.modules, "trime_fairseq.cli.streaming", module)
    # "--dim" would be an abbreviation of --dimension.
    given = ["data-bin", "--path", "model.pt", "--dim", "7"]
    assert main([*given, *arguments(tmp_path, "--streaming")]) == 3
    assert calls == [(str(tmp_path / "knn"), given)]


def _remove_index(folder):
    for path in folder.glob("knn*"):
        path.unlink()
