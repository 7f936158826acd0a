"""Flags of memories in translation that contradict each other, or what they name; all before translating."""

import shutil
from argparse import Namespace
from dataclasses import replace

import faiss
import numpy as np
import pytest

from tests.commands import run
from tests.generation.translations import (
    CHECKPOINT,
    DIMENSION,
    MT,
    ROWS,
    generation,
    keys_of,
    make_folder,
    open_task,
)
from trime_fairseq.datastore import DatastoreError, Manifest
from trime_fairseq.files import file_hash, symbols_hash
from trime_fairseq.generation import TranslationMemoryConfig

GOOD = dict(
    use_knn_datastore=True, dstore_filename="D", indexfile="D/flat_ip", path="M", model_overrides="{}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("datastore"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"load_knn_datastore": True},  # of published commands
        {"knn_temperature_type": "fix", "knn_k_type": "fix"},
        {"knn_lambda_type": "trime-published", "knn_lambda_value": 0.0},
        {"knn_lambda_type": "fix", "knn_lambda_value": 0.0},
        {"dstore_filename": "A:B", "indexfile": "A/i:B/i"},
        {"model_overrides": "{'beam': 5}"},
        {"model_overrides": "no dictionary"},
    ],
)
def test_accepted(changes):
    TranslationMemoryConfig(**{**GOOD, **changes}).check()


def test_published_name_of_inner_product():
    assert TranslationMemoryConfig(knn_sim_func="dot").similarity == "ip"
    assert TranslationMemoryConfig(knn_sim_func="l2").similarity == "l2"


def test_stores_of_an_ensemble(tmp_path):
    config = TranslationMemoryConfig(**{**GOOD, "dstore_filename": "A:B", "indexfile": None})
    assert replace(config, index_filename="i").stores() == [("A", "A/i"), ("B", "B/i")]
    assert replace(config, indexfile="x:y").stores() == [("A", "x"), ("B", "y")]


def test_a_folder_to_write_is_made(tmp_path):
    for name in ("a", "deep/b/"):
        TranslationMemoryConfig(**{**GOOD, **WRITE, "dstore_mmap": f"{tmp_path}/{name}"}).check()
        assert (tmp_path / name).is_dir()


NONE = dict(use_knn_datastore=False, dstore_filename=None, indexfile=None)
WRITE = dict(NONE, save_knnlm_dstore=True, dstore_mmap="d", num_shards=1, shard_id=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dstore_filename": None}, "--use-knn-datastore needs --dstore-filename DIR"),
        ({"indexfile": None}, "--use-knn-datastore needs --index-filename NAME"),
        ({"index_filename": "i"}, "--indexfile and --index-filename both name the index"),
        ({"indexfile": None, "index_filename": "i"}, "--index-filename i lies in the folder .* D is none"),
        ({"dstore_filename": "A:B"}, "names 2 datastores, --indexfile 1 indexes"),
        ({"k": 0}, "--k must be positive"),
        ({"probe": 0}, "--probe must be positive"),
        ({"knn_temperature_value": 0.0}, "--knn-temperature-value must be positive"),
        ({"knn_lambda_type": "fix"}, "--knn-lambda-value, the weight of --knn-lambda-type fix, is needed"),
        ({"knn_lambda_type": "fix", "knn_lambda_value": 1.0}, r"is needed, in \[0, 1\), not 1.0"),
        ({"knn_lambda_value": 0.2}, "--knn-lambda-value is the weight of --knn-lambda-type fix; trime"),
        ({"knn_lambda_type": "trainable"}, "--knn-lambda-type trainable .*Meta-k network of adaptive kNN-MT"),
        ({"knn_lambda_type": "soft"}, "--knn-lambda-type soft: one of trime, trime-published"),
        ({"knn_k_type": "trainable"}, "--knn-k-type trainable: only fix; .*Meta-k"),
        ({"knn_temperature_type": "trainable"}, "--knn-temperature-type trainable: only fix"),
        ({"save_knnlm_dstore": True}, "--save-knnlm-dstore: not with --use-knn-datastore"),
        ({"check_recall": 5}, "--check-recall: of fairseq-eval-lm only"),
        ({"model_overrides": "{'k': 8}"}, "--model-overrides has k, which is a flag .*: --k"),
        ({"model_overrides": "{'knn_record_lambda': 1}"}, "--model-overrides has knn_record_lambda"),
        ({"model_overrides": "{'use_gpu_to_search': True}"}, "--model-overrides has use_gpu_to_search"),
        ({**NONE, "load_knn_datastore": True}, "--load-knn-datastore: nothing is searched, pass --use-knn"),
        ({**NONE, "dstore_filename": "D", "k": 9}, "--dstore-filename and --k: nothing is searched"),
        ({**NONE, "knn_temperature_value": 5.0}, "--knn-temperature-value: nothing is searched"),
        ({**NONE, "dstore_size": 7}, "--dstore-size and --dstore-fp16: no datastore"),
        ({**NONE, "save_knnlm_dstore": True}, "--save-knnlm-dstore needs --dstore-mmap DIR"),
        ({**NONE, "dstore_mmap": "d"}, "--dstore-mmap writes: pass --save-knnlm-dstore as well"),
        ({**WRITE, "path": "a.pt:b.pt"}, "are one model's, but --path names 2: write one for each"),
        ({**WRITE, "num_shards": 2, "shard_id": 2}, "--shard-id 2 is none of --num-shards 2"),
        ({**WRITE, "dstore_mmap": "/proc/d"}, "--dstore-mmap /proc/d/manifest.json: cannot be written"),
        ({**WRITE, "k": 9}, "--k: nothing is searched"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TranslationMemoryConfig(**{**GOOD, **changes}).check()


def test_index_that_was_named_without_its_metric(folder):
    shutil.copy(folder / "flat_ip", folder / "knn.ip")
    settings = dict(GOOD, dstore_filename=str(folder), indexfile=None, index_filename="knn")
    with pytest.raises(ValueError, match="--index-filename .*/knn does not exist, but .*/knn.ip: pass that"):
        TranslationMemoryConfig(**settings).check()


def manifest(**changes):
    """Of the reference's datastore, as this package would have written it."""
    with open(MT / "data" / "dict.en.txt", encoding="utf-8") as lines:
        words = [line.rpartition(" ")[0] for line in lines]
    values = dict(
        rows=ROWS,
        dimension=DIMENSION,
        key_dtype="float16",
        keys_stored=True,
        key_type="model_output",
        dictionary_hash=symbols_hash(["<s>", "<pad>", "</s>", "<unk>", *words]),
        checkpoint=str(CHECKPOINT),
        checkpoint_hash=file_hash(str(CHECKPOINT)),
        data_hash=None,
        subset="store",
        sample_break_mode="eos",
        tokens_per_sample=1024,
        context_window=0,
        context_full_only=False,
        complete=True,
    )
    return Manifest(**{**values, **changes})


@pytest.fixture(scope="module")
def spoilt(folder):
    """Datastores and indexes beside the good one that do not fit; all keys are float16."""
    keys, values = keys_of(folder), np.fromfile(folder / "vals.npy", dtype=np.int64)

    def write(name, keys, values, description=None):
        keys.tofile(folder / f"{name}-fp16_keys.npy")
        values.tofile(folder / f"{name}_vals.npy")
        if description is not None:
            description.write(str(folder / name))

    write("described", keys, values, manifest())
    write("other_words", keys, values, manifest(dictionary_hash="0"))
    write("inputs", keys, values, manifest(key_type="last_ffn_input"))
    write("other_model", keys, values, manifest(checkpoint="other.pt", checkpoint_hash="0"))
    write("half", keys, values, manifest(complete=False))
    write("large", keys, np.where(values == 2, 1712, values))
    write("swapped", np.random.default_rng(0).permutation(keys), values)
    write("few", keys[:5], values[:5])
    write("narrow", keys[:, :32], values, manifest(dimension=32))
    damaged = keys.copy()
    damaged[:] = np.nan
    write("damaged", damaged, values)
    few = faiss.IndexFlatIP(DIMENSION)
    few.add(keys[:5].astype(np.float32))
    faiss.write_index(few, str(folder / "flat_few"))
    narrow = faiss.IndexFlatIP(32)
    narrow.add(np.ascontiguousarray(keys[:, :32], dtype=np.float32))
    faiss.write_index(narrow, str(folder / "flat_narrow"))
    (folder / "flat_cut").write_bytes((folder / "flat_ip").read_bytes()[:5000])
    return folder


def attach(folder, store="store", index="flat_ip", **settings):
    if store in ("described", "other_words", "inputs", "other_model", "half", "narrow"):
        settings = {"dstore_fp16": False, **settings}
    task, models = open_task(folder, dstore_filename=f"{folder}/{store}", index_filename=index, **settings)
    task.build_generator(models, Namespace(beam=2))
    return models


def test_datastore_with_a_manifest(spoilt):
    assert attach(spoilt, "described")


def test_datastore_of_another_checkpoint(spoilt, caplog):
    """As for language models: a warning, since representations may agree."""
    attach(spoilt, "other_model")
    assert any("made with another checkpoint (other.pt)" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(store="nothing"), "nothing_vals.npy does not exist"),
        (dict(store="half"), "is not complete"),
        (dict(store="narrow"), "have dimension 32, those of --path 64: the datastore is another model's"),
        (
            dict(store="other_words"),
            "another dictionary than DATA/dict.en.txt.* with --tgtdict DATA/dict.en.txt",
        ),
        (dict(store="inputs"), "are last_ffn_input: a search needs model_output"),
        (dict(store="large"), "holds the token 1,712, but the dictionary .* has 1,712 symbols"),
        (dict(store="swapped", index="knn_index_ip"), "are not those of the index"),
        (dict(store="damaged"), "NaN"),
        (dict(dstore_size=7000), "--dstore-size"),
        (dict(index="nothing"), "the index .*nothing cannot be read"),
        (dict(index="flat_cut"), "cut off, or no Faiss index"),
        (dict(index="flat_narrow"), "has dimension 32, the keys of --path 64"),
        (dict(index="flat_few"), "holds 5 keys, the datastore .* 7,139"),
        (
            dict(index="flat_l2", faiss_metric_type="ip"),
            "--faiss-metric-type ip: the index .* was built for l2",
        ),
        (dict(knn_sim_func="do_not_recomp_l2"), "--knn-sim-func do_not_recomp_l2 .* is for ip"),
        (dict(knn_sim_func="dot", no_load_keys=True), "leave out --no-load-keys"),
        (dict(index="flat_l2", no_load_keys=True), "leave out --no-load-keys"),
        (dict(store="few", index="flat_few", k=6), "--k 6 exceeds the datastore .* of 5 rows"),
    ],
)
def test_what_does_not_fit_is_refused(spoilt, settings, message):
    with pytest.raises(DatastoreError, match=message):
        attach(spoilt, **settings)


def test_lists_to_visit_of_an_index_without_lists(folder):
    assert attach(folder, probe=8)


@pytest.mark.process
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--use-knn-datastore --dstore-filename {0}/nothing --indexfile {0}/flat_ip",
            "nothing_vals.npy does not",
        ),
        (
            "--use-knn-datastore --dstore-filename {0}/store --indexfile {0}/flat_ip "
            "--knn-lambda-type trainable",
            "Meta-k network",
        ),
    ],
)
def test_an_error_is_one_line_of_the_command(folder, flags, message):
    output = run(*generation(flags.format(folder), "--max-tokens", "500"), fails=True)
    assert output.splitlines()[-1].startswith("TRIME: error: ")
    assert message in output.splitlines()[-1]
    assert "H-0" not in output


@pytest.mark.process
def test_training_has_no_datastore(folder, tmp_path):
    flags = f"--use-knn-datastore --dstore-filename {folder}/store --indexfile {folder}/flat_ip"
    model = (
        "--arch transformer_iwslt_de_en --optimizer sgd --lr 0.1 --max-tokens 500 --criterion cross_entropy"
    )
    words = generation(f"{flags} {model}", command="fairseq-train")
    cut = words.index("--path")
    output = run(*words[:cut], *words[cut + 4 :], "--save-dir", tmp_path, fails=True)
    assert "TRIME: error: --use-knn-datastore: of fairseq-generate" in output.splitlines()[-1]
