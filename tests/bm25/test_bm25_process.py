"""The chain of commands on real text: similar neighbours, resumed after a kill, training on the result."""

import json
import os
import shutil
import subprocess
import time

import numpy as np
import pytest

from tests.commands import BIN, REFERENCE, ROOT, environment, run, train
from tests.small_pairs import copy_data
from tests.training.translation import losses, training
from trime_fairseq.bm25 import SearchResults, read_segments
from trime_fairseq.bm25.batches import BatchesInfo
from trime_fairseq.files import Lock

from .small import ENGINES, needs_lucene, write

pytestmark = [pytest.mark.process, pytest.mark.slow]
pytest.importorskip("bm25s")
DATA = REFERENCE / "data" / "word"


def start_chain(out, engine, data=DATA, tokens=128, **settings):
    command = ["bash", ROOT / "scripts" / "bm25_batches.sh", data, tokens, out]
    return subprocess.Popen(
        list(map(str, command)),
        env={**environment(cpu=True), "PATH": f"{BIN}:{os.environ['PATH']}", "ENGINE": engine, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def chain(out, engine):
    child = start_chain(out, engine)
    log, _ = child.communicate(timeout=900)
    assert child.returncode == 0, log[-4000:]
    return log


@pytest.fixture(scope="session")
def chained(tmp_path_factory, worker_id):
    """Makes the folder of the whole chain of an engine on the reference text, 1,711 segments; one for all
    workers of the tests. fairseq exports them once."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def made(engine):
        out, log = base / f"chain-{engine}", base / f"chain-{engine}.log"
        lock = Lock(f"{out}.lock")
        lock.acquire(wait=True)
        try:
            if not log.exists():
                if engine != "bm25s":
                    copy_segments(made("bm25s")[0], out)
                log.write_text(chain(out, engine))
        finally:
            lock.release()
        return out, log.read_text()

    return made


def copy_segments(chained, out):
    shutil.copytree(chained / "segments", out / "segments")


@pytest.mark.parametrize("engine", ENGINES)
def test_neighbours_are_similar(chained, engine):
    out, log = chained(engine)
    report = json.loads((out / "report" / "report.json").read_text())
    assert report["list"]["overlap"]["times_random"] >= 3
    assert report["list"]["overlap"]["mean"] > report["text"]["overlap"]["mean"]
    assert report["list"]["bm25"]["times_random"] > report["text"]["bm25"]["times_random"]
    info = BatchesInfo.read(str(out / "batches.json"))
    assert info.neighbor_share >= 0.9
    assert (info.engine, info.segments, info.tokens_per_sample) == (engine, 1711, 128)
    assert f"{info.neighbor_share:.1%} of the steps to a retrieved neighbour" in log
    assert sorted(json.loads((out / "batches.json").read_text())) == list(range(1711))
    ids, scores = SearchResults.open(str(out / "bm25_results")).read()
    assert ids.shape == (1711, 50)
    assert not (ids == np.arange(1711)[:, None]).any()
    assert (np.diff(scores, axis=1) <= 0).all()


def test_what_is_done_is_skipped(chained):
    out, _ = chained("bm25s")
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "search.info"]
    before = {path: path.stat().st_mtime_ns for path in files}
    log = chain(out, "bm25s")
    assert "the segments are there already" in log
    assert "the index is there already" in log
    assert {path: path.stat().st_mtime_ns for path in files} == before
    other = ("--tokens_per_sample", 64, "--segments_path", segments(out))
    log = run("trime-bm25", "export", DATA, *other, fails=True)
    assert "holds segments of another text, or cut otherwise" in log.splitlines()[-1]


def segments(out):
    return out / "segments" / "segments.json"


def test_shards_started_together(tmp_path, chained):
    """Two machines with one folder: one makes the index, whoever is last makes the list."""
    whole, _ = chained("bm25s")
    copy_segments(whole, tmp_path)
    shards = [start_chain(tmp_path, "bm25s", NUM_SHARDS="2", SHARD_ID=shard) for shard in "01"]
    logs = [shard.communicate(timeout=600)[0] for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0], logs
    assert (tmp_path / "batches.json").read_text() == (whole / "batches.json").read_text()


def test_ext_loss_trains_on_it(chained, tmp_path):
    out, _ = chained("bm25s")
    batches = ("--criterion", "trime_ext_loss", "--predefined-batches", out / "batches.json")
    log = train(tmp_path / "a", *batches, "--max-update", 2, "--disable-validation")
    assert "TRIME: 1,711 segments in training order" in log
    # The list of a training is not replaced while it is stopped.
    batches = ("--criterion", "trime_ext_loss", "--predefined-batches", DATA / "batches.json")
    more = (*batches, "--max-update", 3, "--disable-validation")
    log = train(tmp_path / "a", *more, fails=True)
    assert "--predefined-batches is another list than the one that this training" in log.splitlines()[-1]
    log = train(tmp_path / "a", *more, "--reset-dataloader")
    assert "@ 2 updates" in log
    batches = (*batches[:-1], out / "batches.json")
    log = train(tmp_path / "b", *batches, "--train-subset", "valid", fails=True)
    assert "was made from another text than the training data" in log.splitlines()[-1]


@needs_lucene
def test_engines_agree_on_most_neighbours(chained):
    folders = [str(chained(engine)[0] / "bm25_results") for engine in ("lucene", "bm25s")]
    first, second = (SearchResults.open(folder).read()[0][:, :10] for folder in folders)
    assert np.mean([len(np.intersect1d(*rows)) / 10 for rows in zip(first, second)]) > 0.5


def test_killed_while_searching(chained, tmp_path):
    """kill -9 in mid-search, by the published script with its flags: it continues."""
    out, _ = chained("bm25s")
    paths = (
        "--index_path",
        out / "bm25_index",
        "--segments_path",
        segments(out),
        "--results_path",
        tmp_path / "r",
    )
    command = [BIN / "python", ROOT / "scripts" / "bm25_search.py", *paths, "--threads", 2, "--piece", 20]
    child = subprocess.Popen(
        list(map(str, command)),
        env=environment(cpu=True),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("r/*.npz"))) < 3:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True).stdout.split()
    assert workers
    child.kill()
    child.wait()
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("r/*.npz")}
    assert len(before) < 86
    batches = (ROOT / "scripts" / "bm25_make_batches.py", "--results_path", tmp_path / "r")
    log = run(BIN / "python", *batches, "--batch_file", tmp_path / "b.json", fails=True)
    assert "pieces are missing" in log.splitlines()[-1]
    run(*command)
    assert not list(tmp_path.glob("r/*.tmp"))
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    for ours, whole in zip(
        SearchResults.open(str(tmp_path / "r")).read(), SearchResults.open(str(out / "bm25_results")).read()
    ):
        np.testing.assert_array_equal(ours, whole)
    run(BIN / "python", *batches, "--batch_file", tmp_path / "b.json")
    assert (tmp_path / "b.json").read_text() == (out / "batches.json").read_text()


def test_errors_are_one_line(tmp_path):
    path = write(tmp_path / "s.json", ["a", "b"], ids=["a", "b"])
    log = run("trime-bm25", "index", "--segments-path", path, "--index-path", tmp_path / "i", fails=True)
    assert log.splitlines()[-1].startswith("trime-bm25 index: error: --segments-path")
    assert not (tmp_path / "i").exists()


def test_export_describes_itself(chained):
    out, _ = chained("bm25s")
    info = read_segments(str(segments(out))).info
    assert (info.segments, info.tokens_per_sample, info.sample_break_mode) == (1711, 128, "none")
    assert len(info.data_hash) == len(info.text_hash) == 64


def test_script_of_target_sentences(tmp_path):
    """All training sentences once, as words, each with 20 neighbours; started again it exports nothing. A
    translation trains on the list, unless its target sentences are others."""
    data, out = REFERENCE / "mt" / "data", tmp_path / "bm25"
    logs = []
    for _ in range(2):
        child = start_chain(out, "bm25s", data=data, tokens="sentences")
        logs.append(child.communicate(timeout=900)[0])
        assert child.returncode == 0, logs[-1][-4000:]
    assert ["training target sentences" in log for log in logs] == [True, False]
    assert sorted(json.loads((out / "batches.json").read_text())) == list(range(3000))
    assert SearchResults.open(str(out / "bm25_results")).info.k == 20
    assert not any("@@" in text for text in read_segments(str(out / "segments" / "segments.json")).texts)
    flags = "--criterion trime_mt_loss --temp 10 --topk-mem 8 --max-update 2 --no-save --disable-validation"
    flags = [*flags.split(), "--predefined-batches", out / "batches.json"]
    log = run(*training(tmp_path / "model", *flags))
    assert len(losses(log)) == 2
    other = copy_data(tmp_path / "other")
    path = other / "train.es-en.en.bin"
    tokens = path.read_bytes()
    path.write_bytes(tokens[2:4] + tokens[:2] + tokens[4:])
    last = run(*training(tmp_path / "model", *flags, data=other), fails=True).splitlines()[-1]
    assert last.startswith("TRIME: error: --predefined-batches ")
    assert "was made from other target sentences than" in last
