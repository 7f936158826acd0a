"""The recipes of train_scripts run, and the released models' evaluation compares."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.commands import BIN, REFERENCE, ROOT, evaluate_here, run
from tests.training.test_train_process import logged

pytestmark = pytest.mark.process
ALL = sorted(path.stem for path in (ROOT / "train_scripts").glob("*-*.sh"))
TRANSLATION = [name for name in ALL if name.startswith("iwslt14")]
RECIPES = [name for name in ALL if name not in TRANSLATION]
BATCHES = REFERENCE / "data" / "word" / "batches.json"


def recipe(name, *flags, fails=False, **variables):
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", ROOT / "train_scripts" / f"{name}.sh", *flags],
        env={**environment, **{key: str(value) for key, value in variables.items()}},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode != 0) == fails, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_smoke(name, tmp_path, small):
    """Trains a few updates with the recipe's criterion and order, validates, and leaves a checkpoint."""
    data = REFERENCE / "data" / "char" if name.startswith("enwik8") else small
    variables = dict(SMOKE=1, DATA=data, SAVE_DIR=tmp_path, PREDEFINED_BATCHES=BATCHES)
    if name == "wiki103-247M-trime_ext":
        log = recipe(name, **variables)
    else:  # the same command, without waiting for fairseq to be imported
        log = run(*shlex.split(recipe(name, "--dry-run", **variables).splitlines()[0]))
    assert logged(log, "valid", "num_updates") == [3]
    assert logged(log, "train_inner", "norm_loss") == logged(log, "train_inner", "loss")
    assert logged(log, "valid", "loss")[0] < logged(log, "valid", "ori_loss")[0]
    assert (tmp_path / "checkpoint_last.pt").exists()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_effective_batch_does_not_depend_on_devices(name, devices):
    command = recipe(name, "--dry-run", NGPU=devices).splitlines()[0].split()

    def value(flag):
        return int(command[command.index(flag) + 1])

    tokens = value("--max-tokens") * value("--update-freq") * value("--distributed-world-size")
    expected = {"wiki103-247M": 73728, "wiki103-150M": 72000, "enwik8-38M": 49152, "iwslt14": 16384}
    assert tokens == next(number for family, number in expected.items() if name.startswith(family))
    assert value("--distributed-world-size") == devices


@pytest.mark.parametrize("name", TRANSLATION)
def test_translation_recipes(name):
    """In float32, without a warm-up, and for the languages of the data."""
    words = shlex.split(recipe(name, "--dry-run").splitlines()[0])
    assert words[words.index("--task") + 1] == "trime_translation"
    assert not {"--fp16", "--bf16", "--ce-warmup-epoch", "--source-lang", "--tokens-per-sample"} & set(words)
    criterion = words[words.index("--criterion") :]
    if name == "iwslt14-trime":
        expected = "--criterion trime_mt_loss --dist-func ip --temp 10.0 --topk-mem 8 --predefined-batches"
        assert criterion == [*expected.split(), "bm25/iwslt14/batches.json"]
    else:
        assert criterion == ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"]
    assert "--bf16" in recipe(name, "--dry-run", PRECISION="--bf16")


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSLATION)
def test_translation_smoke(name, tmp_path):
    """Trains a few updates, translates the validation text, and leaves the best checkpoint."""
    batches = REFERENCE / "mt" / "data" / "bm25_batches.json"
    variables = dict(SMOKE=1, DATA=REFERENCE / "mt" / "data", SAVE_DIR=tmp_path, PREDEFINED_BATCHES=batches)
    log = run(*shlex.split(recipe(name, "--dry-run", **variables).splitlines()[0]))
    assert logged(log, "valid", "num_updates") == [3]
    assert logged(log, "valid", "bleu")[0] >= 0
    assert (tmp_path / "checkpoint_best.pt").exists()


def test_variables_and_further_flags():
    variables = dict(
        NGPU=8, MAX_TOKENS=3072, UPDATE_FREQ=2, SEED=7, PRECISION="--bf16", DATA="d", SAVE_DIR="s"
    )
    command = recipe("wiki103-247M-trime_long", "--dry-run", "--max-update", "50", **variables).splitlines()[
        0
    ]
    words = command.split()
    assert words[1] == "d"
    for pair in ("--save-dir s", "--update-freq 2", "--seed 7", "--train-mem-size 12288"):
        assert f" {pair} " in command
    assert "--bf16" in words
    assert "--fp16" not in words
    assert words[-2:] == ["--max-update", "50"]


def test_batch_that_does_not_divide():
    output = recipe("wiki103-247M-trime", "--dry-run", NGPU=5, fails=True)
    assert "BATCH_TOKENS=73728 is no multiple of NGPU x MAX_TOKENS = 5 x 3072" in output


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NGPU", "0"),
        ("NGPU", "1.5"),
        ("NGPU", "four"),
        ("NGPU", "-4"),
        ("NGPU", "08"),
        ("NGPU", "9" * 30),
        ("NGPU", "PATH[$(touch {planted})]"),
        ("MAX_TOKENS", "a[$(touch {planted})]"),
        ("BATCH_TOKENS", "a[$(touch {planted})]"),
        ("UPDATE_FREQ", "a[$(touch {planted})]"),
        ("UPDATE_FREQ", "1,2"),
        ("SEGMENT", "a[$(touch {planted})]"),
        ("TRAIN_MEM_SIZE", "0x10"),
        ("SEED", "-1"),
        ("SMOKE", "yes"),
        ("PRECISION", "--fp16 *"),
    ],
)
def test_variables_that_are_no_numbers(tmp_path, variable, value):
    """One line, and bash evaluates nothing of it."""
    value = value.format(planted=tmp_path / "planted")
    output = recipe("wiki103-247M-trime_long", "--dry-run", fails=True, **{variable: value})
    (line,) = output.splitlines()
    assert line.startswith(f"wiki103-247M-trime_long: {variable}=")
    assert " must be " in line
    assert not list(tmp_path.iterdir())


def test_translation_smoke_without_data(tmp_path):
    output = recipe("iwslt14-trime", "--dry-run", fails=True, SMOKE=1, DATA=tmp_path)
    assert output.splitlines()[-1].startswith(f"iwslt14-trime: DATA={tmp_path} holds no dict.*.txt")


def test_smoke_without_data(tmp_path):
    output = recipe("wiki103-247M-trime", "--dry-run", fails=True, SMOKE=1, DATA=tmp_path)
    assert output.splitlines()[-1].endswith(
        "holds no dict.txt: make it with get_data.sh or fairseq-preprocess"
    )


@pytest.fixture(scope="module")
def released(tmp_path_factory, small):
    """The folders of the released models, with reference checkpoints in them."""
    folder = tmp_path_factory.mktemp("released")
    (folder / "data-bin").mkdir()
    (folder / "data-bin" / "wikitext-103").symlink_to(small)
    for name, checkpoint in [
        ("wiki103-150M-trime", "word-trime"),
        ("wiki103-150M-trime_long", "word-trime_long"),
    ]:
        (folder / "pretrained_models" / name).mkdir(parents=True)
        source = REFERENCE / "checkpoints" / checkpoint / "checkpoint_best.pt"
        shutil.copy(source, folder / "pretrained_models" / name)
    # As in models.json, but for the sizes of the reference models, and their losses on this text.
    flags = "--sample-break-mode none --tokens-per-sample 128 --context-window 96 --use-local"
    row = {"data": "wikitext-103", "flags": flags}
    loss = evaluate_here("word-trime", flags, small).loss
    table = {
        "wiki103-150M-trime": {**row, "expected": {"valid": {"loss": loss}}},
        "wiki103-150M-trime_long": {**row, "expected": {"valid": {"loss": 7.0001, "perplexity": 128.0}}},
        "enwik8-38M-trime": {**row, "data": "enwik8", "expected": {}},
    }
    (folder / "table.json").write_text(json.dumps(table))
    return folder


def run_pretrained(folder, *models, code=0, table="table.json"):
    command = [
        sys.executable,
        ROOT / "run_pretrained" / "evaluate.py",
        *models,
        "--table",
        table,
        "--cpu",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_released_models_are_compared(released):
    output = run_pretrained(released, "wiki103-150M-trime", "wiki103-150M-trime_long", code=1)
    lines = [line for line in output.splitlines() if line.startswith("wiki103-150M")]
    assert lines[0].endswith(": as published")
    assert "published 7.0001; perplexity" in lines[1]
    assert lines[1].endswith("published 128.0")


def test_released_models_that_cannot_be_evaluated(released):
    assert "run `bash get_data.sh enwik8` first" in run_pretrained(released, "enwik8-38M-trime", code=2)
    assert "unknown model wiki103" in run_pretrained(released, "wiki103", code=2)
    for content, message in (("[", "is no JSON file"), ('{"a": {"data": 1}}', "'a' needs data and flags")):
        (released / "other.json").write_text(content)
        output = run_pretrained(released, "a", code=2, table="other.json")
        assert message in output.splitlines()[-1]


MT = REFERENCE / "mt"
PUBLISHED = json.loads((MT / "evaluation.json").read_text())


@pytest.fixture
def released_translation(tmp_path):
    """The reference's translation model, with its datastore beside it as the authors have it."""
    (tmp_path / "data-bin").mkdir()
    (tmp_path / "data-bin" / "iwslt14").symlink_to(MT / "data")
    place = tmp_path / "pretrained_models" / "iwslt14-vanilla"
    place.mkdir(parents=True)
    shutil.copy(MT / "checkpoint" / "checkpoint_best.pt", place)
    row = {"data": "iwslt14", "translation": True, "checkpoint": "iwslt14-vanilla"}
    common = "--source-lang es --target-lang en --scoring sacrebleu --tokenizer moses --remove-bpe --beam 4 "
    common += "--max-len-a 1.2 --max-len-b 10 --max-tokens 2048 --required-batch-size-multiple 1"
    memory = f"{common} --lenpen 1.0 --k 16 --probe 8 --knn-lambda-type trime-published"
    table = {
        "plain": {**row, "flags": f"{common} --lenpen 0.6", "expected": {"test": {"bleu": 11.51}}},
        "other": {**row, "flags": f"{common} --lenpen 0.6", "expected": {"test": {"bleu": 12.28}}},
        "memory": {
            **row,
            "flags": f"{memory} --knn-temperature-value 5",
            **{"memory": "ip", "rows": 7139, "expected": {"test": {"bleu": 9.51}}},
        },
    }
    (tmp_path / "table.json").write_text(json.dumps(table))
    return tmp_path


@pytest.mark.slow
def test_released_translation_models_are_compared(released_translation):
    """With the numbers that the published code has printed."""
    assert "BLEU = 11.51 " in PUBLISHED["vanilla_beam4"]["result"]
    output = run_pretrained(released_translation, "plain", "other", code=1)
    lines = output.splitlines()
    assert "plain test: bleu 11.51: as published" in lines
    assert "other test: bleu 11.51: bleu 11.5100, published 12.28" in lines


@pytest.mark.slow
def test_released_translation_models_with_memory(released_translation):
    assert "BLEU = 9.51 " in PUBLISHED["trime_ip_ivfpq_k16_t5_beam4"]["result"]
    place = released_translation / "pretrained_models" / "iwslt14-vanilla"
    output = run_pretrained(released_translation, "memory", code=1)
    assert f"run `bash scripts/translation_memory.sh {place.relative_to(released_translation)}" in output
    (place / "dstore").mkdir()
    for name in ("vals.npy", "knn_index_ip"):
        shutil.copy(MT / "datastore" / name, place / "dstore")
    assert "memory test: bleu 9.51: as published" in run_pretrained(released_translation, "memory")


def test_table_of_released_models():
    """One for each of the nine published recipes, and kNN-MT, with the published perplexities and BLEU."""
    assert len(ALL) == 9
    table = json.loads((ROOT / "run_pretrained" / "models.json").read_text())
    assert sorted(table) == sorted([*ALL, "iwslt14-knn"])
    bleu = {name: row["expected"]["test"].get("bleu") for name, row in table.items() if "translation" in row}
    assert bleu == {"iwslt14-vanilla": 32.58, "iwslt14-knn": 33.15, "iwslt14-trime": 33.73}
    for row in table.values():
        valid = row["expected"].get("valid")
        assert valid is None or 2 ** valid["loss"] == pytest.approx(valid["perplexity"], abs=0.01)
