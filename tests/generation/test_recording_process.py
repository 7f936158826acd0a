"""Datastores of translations through the real fairseq-generate: written, continued, indexed, searched."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.commands import environment, run
from tests.generation.translations import CHECKPOINT, DIMENSION, MT, ROWS, RUNS, TASK, generation, printed
from tests.small_pairs import copy_data, make_task
from trime_fairseq.datastore import Manifest, open_datastore

pytestmark = pytest.mark.process

BUILD = "--ncentroids 32 --code_size 16 --probe 8 --dist ip --num_keys_to_add_at_a_time 7000"


def command(flags="", data=MT / "data", subset="store"):
    model = ["--source-lang", "es", "--target-lang", "en", "--cpu", "--path", CHECKPOINT]
    batches = [] if "--max-tokens" in flags else ["--max-tokens", "1000"]
    return ["fairseq-generate", data, *TASK, *model, "--gen-subset", subset, *batches, *flags.split()]


def save(folder, flags="", **more):
    return command(
        f"--score-reference --save-knnlm-dstore --dstore-fp16 --dstore-mmap {folder} {flags}", **more
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The datastore of the split ``store``, and its index; ``log`` is what the command said."""
    folder = tmp_path_factory.mktemp("store") / "d"
    log = run(*save(folder))
    (folder / "log").write_text(log)
    words = f"--dstore_mmap {folder} --faiss_index {folder}/knn_index {BUILD}"
    run(sys.executable, "-m", "trime_fairseq.cli.build_index", *words.split())
    return folder


def arrays(folder):
    return [(folder / name).read_bytes() for name in ("keys.npy", "vals.npy")]


def places(lengths):
    """Sentence and position of each row of our datastores: the order of batches, ties by number."""
    source, target = lengths
    order = np.lexsort((np.arange(len(source)), target, source))
    positions = np.concatenate([np.arange(target[sentence]) for sentence in order])
    return np.repeat(order, target[order]), positions


@pytest.fixture(scope="module")
def lengths():
    task = make_task(MT / "data", source_lang="es", target_lang="en")
    task.load_dataset("store")
    return task.dataset("store").src_sizes, task.dataset("store").tgt_sizes


def test_keys_and_values_of_the_published_code(store, lengths):
    """Theirs are in another order: they draw which of two sentences of equal length comes first."""
    published = np.load(MT / "retrieval.npz")
    theirs = np.lexsort((published["store_position"], published["store_sentence"]))
    sentences, positions = places(lengths)
    ours = np.lexsort((positions, sentences))
    assert np.array_equal(sentences[ours], published["store_sentence"][theirs])
    assert np.array_equal(positions[ours], published["store_position"][theirs])
    values, their_values = (np.fromfile(place / "vals.npy", np.int64) for place in (store, MT / "datastore"))
    assert np.array_equal(values[ours], their_values[theirs])
    keys, their_keys = (
        np.fromfile(place / "keys.npy", np.float16).reshape(ROWS, DIMENSION).astype(np.float32)
        for place in (store, MT / "datastore")
    )
    # The last bit of half precision, in a number of 500.
    differences = np.abs(keys[ours] - their_keys[theirs])
    assert (differences <= np.abs(their_keys[theirs]) * 2**-10 + 1e-5).all()
    assert (differences > 0).mean() < 0.01


def test_what_it_says_and_describes(store):
    log = (store / "log").read_text()
    assert log.splitlines()[-1].endswith(f"TRIME: rows 0 to 7,139 are in {store}, one for each target token")
    # No sentences, no hypotheses, no BLEU of them.
    assert not printed(log)
    assert "T-0" not in log
    assert "BLEU" not in log.splitlines()[-1]
    assert "Translated" not in log
    manifest = Manifest.read(str(store))
    assert manifest.complete
    assert (manifest.rows, manifest.dimension, manifest.key_type) == (ROWS, DIMENSION, "model_output")
    assert (manifest.subset, manifest.languages, manifest.sentences) == ("store", "es-en", 300)
    assert (manifest.metric, manifest.tokens_per_sample) == ("ip", None)
    verify = f"verify {store} --indexfile {store}/knn_index.ip --dictionary {MT}/data/dict.en.txt"
    said = run(sys.executable, "-m", "trime_fairseq.cli.datastore", *verify.split())
    assert "nothing wrong was found" in said
    assert "not checked" not in said


def test_rows_do_not_depend_on_batches_or_seeds(store, tmp_path):
    """Nor on a number of sentences that must divide batches: none is left out."""
    flags = "--batch-size 17 --max-tokens 4000 --seed 5 --num-workers 0 --required-batch-size-multiple 1"
    run(*save(tmp_path / "d", flags))
    keys, values = open_datastore(str(tmp_path / "d")).keys, open_datastore(str(tmp_path / "d")).values
    assert values.tobytes() == arrays(store)[1]
    there = open_datastore(str(store)).keys.astype(np.float32)
    assert np.abs(keys.astype(np.float32) - there).max() < 2e-2
    assert Manifest.read(str(tmp_path / "d")).fingerprint() == Manifest.read(str(store)).fingerprint()


@pytest.mark.slow
def test_shards_of_separate_commands(store, tmp_path):
    for shard in (2, 0, 1):
        log = run(*save(tmp_path / "d", f"--num-shards 3 --shard-id {shard}"))
    assert arrays(tmp_path / "d") == arrays(store)
    assert "the datastore" in log
    assert Manifest.read(str(tmp_path / "d")).complete
    # Complete, it is the same whatever wrote it.
    log = run(*save(tmp_path / "d"))
    assert "rows 0 to 7,139 of" in log
    assert "are there already" in log


CHILD = """
import sys, time
from trime_fairseq.datastore import DatastoreWriter
from trime_fairseq.generation.generate import run_generate
from trime_fairseq.tasks.trime_translation import TrimeTranslationTask

class Slow(DatastoreWriter):
    def write(self, *rows):
        super().write(*rows)
        time.sleep(0.2)

class Task(TrimeTranslationTask):
    def build_sink(self, manifest, begin, end, shard):
        return Slow(self.config.dstore_mmap + "/", manifest, begin, end, note_every=0)

run_generate(sys.argv[1:], Task)
"""


@pytest.mark.slow
def test_killed_while_writing(store, tmp_path):
    folder = tmp_path / "d"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, save(folder)[1:])],
        env=environment(cpu=True),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    note, deadline = folder / "shard-0-of-1.json", time.time() + 120
    while not note.exists() or json.loads(note.read_text())["done"] < 1500:
        assert child.poll() is None
        assert time.time() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = json.loads(note.read_text())["done"]
    assert 1500 <= done < ROWS
    assert not (folder / "vals.npy").exists()
    search = f"--use-knn-datastore --dstore-filename {folder} --indexfile {store}/knn_index.ip"
    assert "is not complete" in run(*command(search, subset="test"), fails=True).splitlines()[-1]
    other = run(*save(folder, "--seed 2", subset="valid"), fails=True)
    assert "is an unfinished datastore of something else" in other
    assert "subset store / valid" in other
    log = run(*save(folder))
    assert f"TRIME: continuing {folder} at row {done:,} of 7,139" in log
    assert arrays(folder) == arrays(store)
    # Only now; it is read before it counts.
    assert "are there already" in run(*save(folder))
    (folder / "keys.npy").write_bytes(arrays(folder)[0][:-2])
    log = run(*save(folder))
    assert "is damaged and will be written again" in log
    assert arrays(folder) == arrays(store)


@pytest.mark.slow
def test_streamed_as_built_from_stored_keys(store, tmp_path):
    """The same values and index without the keys, where training takes all keys."""
    words = (
        f"--dstore_mmap {tmp_path}/d --faiss_index {tmp_path}/d/knn_index {BUILD} --dstore_fp16 --streaming"
    )
    build = [sys.executable, "-m", "trime_fairseq.cli.build_index", *words.split(), *command()[1:]]
    log = run(*build)
    names = sorted(path.name for path in (tmp_path / "d").iterdir() if "trained" not in path.name)
    assert names == ["knn_index.ip", "knn_index.ip.json", "manifest.json", "vals.npy"]
    assert (tmp_path / "d" / "vals.npy").read_bytes() == arrays(store)[1]
    index = (tmp_path / "d" / "knn_index.ip").read_bytes()
    assert index == (store / "knn_index.ip").read_bytes()
    assert "are complete: 7,139 rows" in log
    assert "are there already" in run(*build)
    refused = run(*build, "--distributed-world-size", "2", fails=True)
    assert "leave out --distributed-world-size" in refused.splitlines()[-1]


def translate(run_of, store, index, flags=""):
    """Hypotheses of a published run, with our datastore or theirs."""
    k, temperature = (RUNS[run_of]["overrides"][name] for name in ("k", "knn_temperature_value"))
    search = (
        f"--use-knn-datastore --dstore-filename {store} --index-filename {index} --k {k} --probe 8 "
        f"--no-load-keys --knn-temperature-value {temperature} --knn-lambda-type trime-published {flags}"
    )
    found = printed(run(*generation(RUNS[run_of]["flags"], *search.split())))
    return {name: entry["hypo"] for name, entry in found.items()}


def hypotheses(run_of):
    return {name: entry["hypo"] for name, entry in RUNS[run_of]["sentences"].items()}


def test_published_folder_is_searched():
    name = "trime_ip_ivfpq_k16_t5_beam4"
    assert translate(name, MT / "datastore", "knn_index_ip", "--dstore-fp16") == hypotheses(name)


def test_searched(store):
    """Keys differ in the last bit here and there, rows are in another order."""
    words = f"--dstore_mmap {store} --faiss_index {store}/flat --factory Flat --dist ip"
    run(sys.executable, "-m", "trime_fairseq.cli.build_index", *words.split())
    name = "trime_ip_flat_k16_t15_beam4"
    ours, published = translate(name, store, "flat.ip"), hypotheses(name)
    assert ours.keys() == published.keys()
    assert sum(ours[sentence] == published[sentence] for sentence in ours) >= 58


LONG = "--max-source-positions 40 --max-target-positions 40"


def test_sentences_that_are_too_long(tmp_path, lengths):
    log = run(*save(tmp_path / "d", LONG), fails=True)
    assert "--skip-invalid-size-inputs-valid-test" in log
    assert not (tmp_path / "d" / "keys.npy").exists()
    run(*save(tmp_path / "d", f"{LONG} --skip-invalid-size-inputs-valid-test"))
    source, target = lengths
    short = (source <= 40) & (target <= 40)
    assert 0 < short.sum() < 300
    manifest = Manifest.read(str(tmp_path / "d"))
    assert (manifest.sentences, manifest.rows) == (short.sum(), target[short].sum())
    # Other sentences make another datastore, though checkpoint and text are the same.
    assert "sentences_hash" in run(*save(tmp_path / "d"), fails=True).splitlines()[-1]


def test_ends_well_without_score_reference(store, tmp_path):
    run(*command(f"--save-knnlm-dstore --dstore-fp16 --dstore-mmap {tmp_path}/d"))
    assert arrays(tmp_path / "d") == arrays(store)


def without_targets(folder):
    data = copy_data(folder / "data")
    for path in data.glob("store.es-en.en.*"):
        path.unlink()
    return data


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--distributed-world-size 2", "TRIME: error: --save-knnlm-dstore: pass --num-shards N"),
        ("--context-full-only", "unrecognized arguments: --context-full-only"),
    ],
)
def test_refused(tmp_path, flags, message):
    log = run(*save(tmp_path / "d", flags), fails=True)
    assert message in log.splitlines()[-1]
    assert not list(tmp_path.glob("d/*"))


def test_a_text_without_targets(tmp_path):
    log = run(*save(tmp_path / "d", data=without_targets(tmp_path)), fails=True)
    assert "--gen-subset has no target sentences" in log.splitlines()[-1]


@pytest.mark.parametrize("name", ["fairseq-interactive", "fairseq-train"])
def test_other_commands_write_none(tmp_path, name):
    model = ["--arch", "transformer_iwslt_de_en", "--optimizer", "sgd", "--lr", "0.1", "--max-tokens", "500"]
    where = ["--path", CHECKPOINT] if name == "fairseq-interactive" else model
    words = [
        name,
        MT / "data",
        *TASK,
        "--cpu",
        *where,
        "--save-knnlm-dstore",
        "--dstore-mmap",
        tmp_path / "d",
    ]
    log = run(*words, fails=True)
    assert "--save-knnlm-dstore: of fairseq-generate only" in log.splitlines()[-1]
    assert not (tmp_path / "d").exists()
