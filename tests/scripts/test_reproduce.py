"""reproduce/run.py: from a YAML file to trained models and tables."""

import json
import re
import shlex
import sys

import pytest
import yaml

from tests.commands import ROOT, TINY, run

SCRIPT = ROOT / "reproduce" / "run.py"
WORDS, DEMO = ROOT / "reproduce" / "words.yaml", ROOT / "demo" / "demo.yaml"


def reproduce(experiment, out, *flags, text="text/", fails=False):
    command = (sys.executable, SCRIPT, experiment, "--text", text, "--out", out)
    return run(*command, *flags, fails=fails)


@pytest.fixture
def texts(tmp_path):
    """A text of its own: sentences that come back."""
    words = [f"w{(7 * i * i + i // 9) % 61}" for i in range(4000)]
    lines = [" ".join(words[i : i + 10]) for i in range(0, len(words), 10)]
    for subset, part in (("train", lines[:300]), ("valid", lines[300:350]), ("test", lines[350:])):
        (tmp_path / f"my.{subset}.txt").write_text("\n".join(part) + "\n")
    return f"{tmp_path}/my."


def commands(log, program):
    return [shlex.split(line) for line in log.splitlines() if line.startswith(program + " ")]


def value(words, flag):
    return words[words.index(flag) + 1]


def test_words_trains_each_model_once_as_long_as_its_longest_table(tmp_path, texts):
    log = reproduce(WORDS, tmp_path / "out", "--dry-run", text=texts)
    trained = {value(words, "--save-dir").split("/")[-1]: words for words in commands(log, "fairseq-train")}
    assert len(trained) == len(commands(log, "fairseq-train"))
    # The first seed goes on for the longest table.
    assert {
        name: value(words, "--max-update") for name, words in trained.items() if "plain-LM-seed" in name
    } == {
        "plain-LM-seed1": "6000",
        "plain-LM-seed2": "2000",
        "plain-LM-seed3": "2000",
    }
    models = yaml.safe_load(WORDS.read_text())["models"]
    assert {name.rsplit("-seed", 1)[0] for name in trained} == {
        re.sub(r"[^\w.=-]+", "-", name) for name in models
    }
    main = yaml.safe_load((tmp_path / "out" / "main.yaml").read_text())
    files = main["models"]["plain LM"]["checkpoint"]
    assert [file.split("/")[-1] for file in files] == ["checkpoint_1_2000.pt"] * 3
    # Nearest keys are searched of the two models whose rows need them.
    assert len(commands(log, "trime-build-index")) == 2


def test_tables_seeds_and_updates_can_be_chosen(tmp_path, texts):
    chosen = ("--tables", "main", "--seeds", 5, "--updates", 7)
    log = reproduce(WORDS, tmp_path, "--dry-run", *chosen, text=texts)
    trained = commands(log, "fairseq-train")
    assert [(value(words, "--seed"), value(words, "--max-update")) for words in trained] == [("5", "7")] * 2
    assert [words[1].split("/")[-1] for words in commands(log, "trime-compare")] == ["main.yaml"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modells": {}}, "modells: no such key"),
        ({"models": None}, "the key models is missing"),
        ({"comparisons": {"t": {"rows": {}}}}, "comparisons: t: the key update is missing"),
        ({"comparisons": {"t": {"update": 1, "rows": {"other": ["none"]}}}}, "other is not among the models"),
        ({"models": [1]}, "models: needs names"),
        ({"training": 3}, "training: flags as one text, not 3"),
        ({"training": '--arch "x'}, "training: No closing quotation"),
        ({"save_every": 0}, "save_every must be positive, not 0"),
        ({"k": "64"}, "k must be a whole number, not '64'"),
        ({"comparisons": {"t": {"update": -1, "rows": {}}}}, "t: update must be positive, not -1"),
        ({"comparisons": {"t": {"update": 1, "rows": {}, "seeds": 3}}}, "seeds: a list of whole numbers"),
    ],
)
def test_refuses(tmp_path, change, message):
    content = {**yaml.safe_load(DEMO.read_text()), **change}
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({key: entry for key, entry in content.items() if entry is not None}))
    log = reproduce(path, tmp_path / "out", fails=True)
    assert message in log
    assert str(path) in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--updates", -5], "--updates must be positive, not -5"),
        (["--seeds", 1, 1], "--seeds: 1 is there 2 times"),
        (["--jobs", 0], "--jobs must be positive, not 0"),
        (["--out", WORDS], "words.yaml is no folder: choose another name"),
    ],
)
def test_refuses_flags(tmp_path, flags, message):
    log = reproduce(DEMO, tmp_path / "out", *flags, fails=True)
    assert message in log
    assert "Traceback" not in log


def test_refuses_a_model_that_stands_twice(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text(DEMO.read_text().replace("  TrimeLM: --crit", "  plain LM: --crit"))
    assert "plain LM: there 2 times" in reproduce(path, tmp_path / "out", fails=True)


def test_names_a_text_that_is_not_there(tmp_path):
    assert "neither" in reproduce(DEMO, tmp_path / "out", text=f"{tmp_path}/none.", fails=True)


@pytest.mark.slow
@pytest.mark.process
def test_trains_compares_and_continues(tmp_path, texts):
    training = [*TINY, *"--optimizer adam --lr 0.01 --tokens-per-sample 32 --max-tokens 128".split()]
    training[training.index("--adaptive-input-cutoff") + 1] = "20,40"
    training[training.index("--adaptive-softmax-cutoff") + 1] = "20,40"
    experiment = {
        "training": shlex.join(training) + " --disable-validation --ddp-backend legacy_ddp",
        "evaluation": "--tokens-per-sample 32 --batch-size 4",
        "models": {"plain LM": "--criterion adaptive_loss", "TrimeLM": "--criterion trime_loss"},
        "comparisons": {
            "small": {
                "update": 4,
                "seeds": [1],
                "rows": {"plain LM": ["none", "cache 64"], "TrimeLM": ["local"]},
            }
        },
    }
    path, out = tmp_path / "small.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(experiment, sort_keys=False))
    log = reproduce(path, out, text=texts)
    table = [line for line in log.splitlines() if line.startswith("| ")]
    assert len(table) == 5  # two lines of heading
    json.loads((out / "small" / "comparison.json").read_text())
    times = {file: file.stat().st_mtime_ns for file in out.glob("models/*/*.pt")}
    assert len(times) == 2
    again = reproduce(path, out, text=texts)
    assert [line for line in again.splitlines() if line.startswith("| ")] == table
    assert {file: file.stat().st_mtime_ns for file in out.glob("models/*/*.pt")} == times


def test_excerpt_is_the_beginning_of_each_document(tmp_path):
    for subset in ("train", "valid", "test"):
        (tmp_path / f"{subset}.txt").write_text("a b\nc d\ne f\n\ng h i j k\nl\n\nm\n")
    run(sys.executable, ROOT / "reproduce" / "excerpt.py", f"{tmp_path}/", f"{tmp_path}/short/", "--words", 3)
    assert (tmp_path / "short" / "valid.txt").read_text() == "a b\nc d\n\ng h i j k\n\nm\n"
    assert (tmp_path / "short" / "train.txt").read_text() == (tmp_path / "train.txt").read_text()
