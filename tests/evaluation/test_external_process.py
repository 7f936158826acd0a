"""External memory through the real fairseq-eval-lm: writing, continuing, searching, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch

from tests.commands import REFERENCE, environment, evaluate, evaluate_here, evaluation_command, run, run_ranks
from tests.played import PlayedTask
from trime_fairseq.datastore import DatastoreError, IndexConfig, IndexManifest, Manifest, open_datastore
from trime_fairseq.evaluation import MemoryScorer
from trime_fairseq.evaluation.external import KeySource, open_external

pytestmark = pytest.mark.process

PUBLISHED = REFERENCE / "datastore"
WINDOW = "--context-window 96 --max-tokens 4096 --batch-size 8"
WRITE = f"{WINDOW} --save-knnlm-dstore --dstore-fp16"
SEARCH = f"{WINDOW} --use-external --k 32"
ROWS = 4135  # tokens of the small text for validation
FILES = ("-fp16_keys.npy", "_vals.npy")


def save(data, prefix, flags=""):
    return evaluation_command("word-trime_ext", f"{WRITE} --dstore-mmap {prefix} {flags}", data)


@pytest.fixture(scope="module")
def store(tmp_path_factory, small):
    """All tokens of the validation text, and a Flat index of them."""
    folder = tmp_path_factory.mktemp("store")
    prefix = folder / "dstore"
    run(*save(small, prefix))
    keys = np.array(open_datastore(str(prefix)).keys, dtype=np.float32)
    index = faiss.IndexFlatIP(keys.shape[1])
    index.add(keys)
    faiss.write_index(index, str(folder / "flat.ip"))
    return folder


def arrays(prefix):
    return [open(f"{prefix}{ending}", "rb").read() for ending in FILES]


@pytest.mark.slow
def test_keys_and_values_of_the_published_code(tmp_path):
    run(*save("word", tmp_path / "d", "--context-full-only --dstore-size 20000 --gen-subset train"))
    (keys, values), (their_keys, their_values) = arrays(tmp_path / "d"), arrays(PUBLISHED / "dstore")
    assert values == their_values
    keys, their_keys = (np.frombuffer(x, dtype=np.float16).astype(np.float32) for x in (keys, their_keys))
    assert np.abs(keys - their_keys).max() < 2e-3  # the last bit of half precision
    manifest = Manifest.read(str(tmp_path / "d"))
    assert manifest.complete
    assert (manifest.rows, manifest.dimension, manifest.key_type) == (20000, 96, "last_ffn_input")


def test_every_evaluated_token_is_there(store, small):
    result = open_datastore(str(store / "dstore"))
    assert result.rows == ROWS
    tokens = np.fromfile(small / "valid.bin", dtype=np.uint16)
    assert np.array_equal(result.values, tokens[-ROWS:])


@pytest.mark.slow
def test_shards_of_separate_commands_and_of_processes_together(store, small, tmp_path):
    for shard in (1, 0):
        run(*save(small, tmp_path / "d", f"--num-shards 2 --shard-id {shard}"))
    assert arrays(tmp_path / "d") == arrays(store / "dstore")
    run_ranks(save(small, tmp_path / "ranks"), 2)
    assert arrays(tmp_path / "ranks") == arrays(store / "dstore")
    assert Manifest.read(str(tmp_path / "ranks")).complete


CHILD = """
import sys
from trime_fairseq.datastore import DatastoreWriter
from trime_fairseq.evaluation import run_eval_lm
from trime_fairseq.tasks.trime_language_modeling import TrimeLanguageModelingTask

class Slow(DatastoreWriter):
    def write(self, *rows):
        import time
        super().write(*rows)
        time.sleep(0.1)

class Task(TrimeLanguageModelingTask):
    def build_sink(self, manifest, begin, end, shard):
        return Slow(self.config.dstore_mmap, manifest, begin, end, note_every=0)

run_eval_lm(sys.argv[1:], Task)
"""


@pytest.mark.slow
def test_killed_while_writing(store, small, tmp_path):
    prefix = tmp_path / "d"
    command = [sys.executable, "-c", CHILD, *map(str, save(small, prefix)[1:])]
    note = tmp_path / "d.shard-0-of-1.json"
    child = subprocess.Popen(
        command, env=environment(cpu=True), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.time() + 120
    while not note.exists() or json.loads(note.read_text())["done"] < 1000:
        assert child.poll() is None
        assert time.time() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not os.path.exists(f"{prefix}_vals.npy")
    log = run(
        *evaluation_command("word-trime_ext", f"{SEARCH} --dstore-filename {prefix}", small), fails=True
    )
    assert "needs --indexfile" in log
    log = run(*save(small, prefix))
    assert "continuing" in log
    assert arrays(prefix) == arrays(store / "dstore")
    log = run(*save(small, prefix))
    assert "are there already" in log
    # There is no loss: fairseq would print a perplexity of 1.
    assert log.splitlines()[-1].endswith(
        "nothing was left to evaluate: there is no loss, and no result is written"
    )


def test_flat_index_gives_the_loss_of_exact_search(store, small, tmp_path):
    """Faiss's scores, and exact ones of the stored keys over another index's neighbours."""
    flags = f"{SEARCH} --dstore-filename {store}/dstore --indexfile"
    (tmp_path / "a").mkdir()
    flat = evaluate(tmp_path, "word-trime_ext", f"{flags} {store}/flat.ip --check-recall 50", small)
    exact = evaluate(tmp_path / "a", "word-trime_ext", f"{flags} {store}/flat.ip --knn-sim-func ip", small)
    assert flat["loss"] == pytest.approx(exact["loss"], rel=1e-6)
    assert flat["recall_at_k"] == 1.0
    assert flat["recall_queries"] == 50
    assert "recall of the index: nearest key 1.000" in flat["log"]
    assert set(flat["stage_seconds"]) == {"model", "search", "combination"}
    assert 0 < sum(flat["stage_seconds"].values()) <= flat["seconds"]
    # Searched in its own text, a token finds itself.
    assert flat["loss"] < 7.0


class KeepingScorer(MemoryScorer):
    """Keeps the log-probabilities of all tokens, of the last evaluation."""

    kept: list[torch.Tensor] = []

    def _combine(self, *scores):
        mixture = super()._combine(*scores)
        self.kept.append(mixture.log_prob.double())
        return mixture


class KeepingTask(PlayedTask):
    def build_scorer(self, config, pad, parts):
        KeepingScorer.kept.clear()
        return KeepingScorer(config, pad, parts)


def probabilities(flags, data):
    evaluate_here("word-trime_ext", f"{WINDOW} {flags}", data, KeepingTask)
    return torch.cat(KeepingScorer.kept).exp()


def test_cache_and_knnlm_together(store, small, tmp_path):
    """The command's loss is what evaluations of the model, the cache and the kNN-LM give."""
    cache = "--mode li --use-local --use-long --mem-size 512 --softmax-temp 1.5"
    search = f"--knnlm --k 32 --dstore-filename {store}/dstore --indexfile {store}/flat.ip"
    both = f"{cache} --cache-lmbda 0.2 {search} --interp-temp 9 --lmbda 0.1"
    result = evaluate(tmp_path, "word-trime_ext", f"{WINDOW} {both}", small)
    # With 0.7 p_LM + 0.2 p_cache + 0.1 p_kNN, of halves: weights of 1 would give words no probability.
    p = 0.4 * probabilities("--mode lm", small)
    p += 0.4 * probabilities(f"{cache} --cache-lmbda 0.5", small)
    p += 0.2 * probabilities(f"{search} --softmax-temp 9 --lmbda 0.5", small)
    assert result["tokens"] == len(p) == ROWS
    assert result["loss"] == pytest.approx(-p.log2().mean().item(), rel=1e-6)
    assert result["mem_mass"] == pytest.approx(0.3, abs=1e-3)  # the first tokens have no cache
    settings = dict(mode="li", knnlm=True, cache_lmbda=0.2, lmbda=0.1, softmax_temp=1.5, interp_temp=9.0)
    assert settings.items() <= result.items()


@pytest.mark.slow
def test_datastore_of_another_corpus(store, small, tmp_path):
    """Domain adaptation: the model of one text, with a datastore that another checkpoint made."""
    run(*evaluation_command("word-trime", f"{WRITE} --dstore-mmap {tmp_path}/d --gen-subset test", small))
    keys = np.array(open_datastore(str(tmp_path / "d")).keys, dtype=np.float32)
    index = faiss.IndexFlatIP(keys.shape[1])
    index.add(keys)
    faiss.write_index(index, str(tmp_path / "flat.ip"))
    flags = f"{WINDOW} --knnlm --k 8 --lmbda 0 --dstore-filename {tmp_path}/d --indexfile {tmp_path}/flat.ip"
    result = evaluate(tmp_path, "word-trime_ext", flags, small)
    assert "was made with another checkpoint" in result["log"]
    # Of no weight, it changes nothing.
    plain = evaluate_here("word-trime_ext", f"{WINDOW} --mode lm", small)
    assert result["loss"] == pytest.approx(plain.loss, rel=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--use-external --dstore-filename {0}/dstore --indexfile {0}/none", "cannot be read"),
        ("--save-knnlm-dstore --dstore-mmap {0}/new --dstore-size 30000", f"has {ROWS:,} tokens to store"),
        ("--save-knnlm-dstore --dstore-mmap {0}/dstore", "a complete datastore of something else"),
    ],
)
def test_bad_input_ends_before_the_model_runs(store, small, flags, message):
    command = evaluation_command("word-trime_ext", f"{WINDOW} {flags.format(store)}", small)
    output = run(*command, fails=True)
    assert message in output.splitlines()[-1], output[-2000:]
    assert "seconds per stage" not in output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dstore_filename": None}, "external memory needs --dstore-filename"),
        ({"indexfile": None}, "external memory needs --indexfile"),
        ({"indexfile": "{0}/cut"}, "cut cannot be read"),
        ({"indexfile": "{0}/words.json"}, "words.json cannot be read"),
        ({"indexfile": "{1}/knn.index.ip"}, f"holds 20,000 keys, the datastore .* {ROWS:,}"),
        ({"indexfile": "{0}/narrow"}, "has dimension 8, the keys of --path 96"),
        ({"indexfile": "{0}/foreign"}, "was built from another datastore"),
        ({"indexfile": "{0}/unfinished"}, "is not complete: run trime-build-index again"),
        ({"k": 30000}, "--k 30,000 exceeds"),
        ({"faiss_metric_type": "l2"}, "--faiss-metric-type l2: the index .* was built for ip"),
        ({"faiss_metric_type": "cos", "indexfile": "{0}/foreign"}, "was built for ip"),
        ({"dstore_filename": "{0}/words"}, "made with another dictionary"),
        ({"dstore_filename": "{0}/half"}, "is not complete"),
        ({"dstore_filename": "{0}/outputs"}, "pass --knn-keytype model_output"),
        ({"dstore_size": 20000}, f"says {ROWS:,}, not 20,000"),
        ({"knn_sim_func": "ip", "no_load_keys": True}, "leave out --no-load-keys"),
        ({"dstore_filename": "{0}/foreign_words"}, "holds the token 20.* has 7,000 symbols"),
        ({"dstore_filename": "{0}/swapped"}, "swapped_vals.npy is not what was written: its checksum"),
        (
            {"dstore_filename": "{0}/other_keys"},
            "the keys of .*other_keys-fp16_keys.npy are not those",
        ),
        ({"indexfile": "{0}/negative"}, "holds ids from -4,1.* its datastore has rows from 0 to 4,134"),
        ({"indexfile": "{0}/squared"}, "is not the index that .*squared.json describes"),
        ({"probe": 0}, "--probe must be positive, not 0"),
        ({"k": 0}, "--k must be positive, not 0"),
    ],
)
def test_what_does_not_fit(store, changes, message):
    spoil(store)
    flags = dict(
        dstore_filename="{0}/dstore",
        indexfile="{0}/flat.ip",
        dstore_size=None,
        dstore_fp16=True,
        knn_sim_func=None,
        no_load_keys=False,
        check_recall=0,
        faiss_metric_type=None,
        k=8,
        probe=None,
        move_dstore_to_mem=False,
        use_faiss_cpu=True,
    )
    words = Manifest.read(f"{store}/dstore").dictionary_hash
    model = KeySource(96, "last_ffn_input", words, None, vocabulary=7_000)

    def attempt(**values):
        paths = {
            name: value.format(store, PUBLISHED) if isinstance(value, str) else value
            for name, value in values.items()
        }
        return open_external(SimpleNamespace(**paths), model, use_gpu=False)

    assert attempt(**flags)[2] == "ip"
    with pytest.raises(DatastoreError, match=message):
        attempt(**{**flags, **changes})


def spoil(store):
    """Datastores and indexes beside the good one that do not fit."""
    if (store / "cut").exists():
        return
    faiss.write_index(faiss.IndexFlatIP(8), str(store / "narrow"))
    manifest = json.loads((store / "dstore.json").read_text())
    for name, change in (
        ("words", {"dictionary_hash": "0"}),
        ("half", {"complete": False}),
        ("outputs", {"key_type": "model_output"}),
    ):
        for ending in FILES:
            shutil.copy(f"{store}/dstore{ending}", f"{store}/{name}{ending}")
        (store / f"{name}.json").write_text(json.dumps({**manifest, **change}))
    whole = replace(Manifest.read(f"{store}/dstore"), values_checksum=None)
    values, keys = (np.fromfile(f"{store}/dstore{ending}", t) for ending, t in zip(FILES[::-1], ("i8", "f2")))
    for name, array, ending, manifest in (
        ("foreign_words", values + 200_000, FILES[1], whole),
        ("swapped", values[::-1], FILES[1], Manifest.read(f"{store}/dstore")),
        ("other_keys", np.random.default_rng(0).permutation(keys), FILES[0], whole),
    ):
        for other in FILES:
            shutil.copy(f"{store}/dstore{other}", f"{store}/{name}{other}")
        array.tofile(f"{store}/{name}{ending}")
        manifest.write(f"{store}/{name}")
    negative = faiss.index_factory(96, "IVF1,Flat", faiss.METRIC_INNER_PRODUCT)
    rows = keys.reshape(-1, 96).astype(np.float32)
    negative.train(rows)
    negative.add_with_ids(rows, -1 - np.arange(ROWS))
    faiss.write_index(negative, str(store / "negative"))
    described = IndexManifest.describe(
        IndexConfig("ip", 96, "Flat"),
        None,
        datastore="another",
        datastore_rows=ROWS,
        training="sample",
        chunk=1,
    )
    shutil.copy(store / "flat.ip", store / "foreign")
    replace(described, complete=True).write(str(store / "foreign"))
    (store / "unfinished.partial").touch()
    squared = faiss.IndexFlatL2(96)
    squared.add(rows)
    faiss.write_index(squared, str(store / "squared"))
    replace(described, complete=True, datastore=whole.fingerprint()).write(str(store / "squared"))
    whole = (store / "flat.ip").read_bytes()
    (store / "cut").write_bytes(whole[: len(whole) // 2])
