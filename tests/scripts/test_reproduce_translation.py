"""reproduce/translation.py: from a YAML file to translation models and a table."""

import json
import shlex
import sys

import pytest
import yaml

from tests.commands import ROOT, run
from tests.scripts.pairs import sentences, write_pair

sys.path.insert(0, str(ROOT / "reproduce"))

import quality  # noqa: E402
from steps import file_name  # noqa: E402
from translation_table import table  # noqa: E402

SCRIPT, PROOF = ROOT / "reproduce" / "translation.py", ROOT / "reproduce" / "translation.yaml"
EXPERIMENT = yaml.safe_load(PROOF.read_text())


def reproduce(experiment, out, *flags, text="text/my", fails=False):
    command = (sys.executable, SCRIPT, experiment, "--text", text, "--out", out)
    return run(*command, *flags, fails=fails)


def value(words, flag):
    return words[words.index(flag) + 1]


def test_the_proof_trains_alike_and_tunes_alike(tmp_path):
    log = reproduce(PROOF, tmp_path, "--dry-run", "--updates", 7, "--seed", 3)
    lines = [shlex.split(line) for line in log.splitlines() if line.startswith(("fairseq-", "trime-"))]
    plain, trime = (words for words in lines if words[0] == "fairseq-train")
    for words, updates in ((plain, "7"), (trime, "14")):
        assert (value(words, "--max-update"), value(words, "--seed")) == (updates, "3")
    assert value(trime, "--predefined-batches") == str(tmp_path / "bm25" / "batches.json")
    differing = {"--criterion", "--save-dir", "--label-smoothing", "--predefined-batches"}
    differing |= {"--dist-func", "--temp", "--topk-mem", "--max-update"}
    alike = [
        [word for place, word in enumerate(words) if not {word, words[place - 1]} & differing]
        for words in (plain, trime)
    ]
    assert alike[0] == alike[1]
    # A datastore of each, with the metric that its memory was made for.
    indexes = [value(words, "--dist") for words in lines if words[0] == "trime-build-index"]
    assert indexes == ["l2", "ip"]
    tuned = [words for words in lines if words[0] == "trime-tune"]
    assert [value(words, "--knn-lambda-type") for words in tuned] == [
        *("fix", "trime", "trime-published", "trime-normalized", "fix")
    ]
    for flag in ("--k", "--decode", "--beam", "--probe", "--gen-subset"):
        assert len({value(words, flag) for words in tuned}) == 1
    generated = [words for words in lines if words[0] == "fairseq-generate"]
    of_test = [words for words in generated if value(words, "--gen-subset") == "test"]
    assert len(of_test) == len(EXPERIMENT["rows"])
    # Every row chooses from the same length penalties.
    of_valid = [value(words, "--lenpen") for words in generated if value(words, "--gen-subset") == "valid"]
    assert of_valid == list(map(str, EXPERIMENT["lenpen"])) * len(EXPERIMENT["rows"])
    assert "prepare_translation.py text/my --source-lang es --target-lang en --bpe 8000" in log
    assert "bm25_batches.sh" in log
    assert not (tmp_path / "results-seed3.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modells": {}}, "modells: no such key"),
        ({"models": None}, "the key models is missing"),
        ({"rows": {"a": {"model": "other"}}}, "rows: a: other is not among the models"),
        ({"rows": {"a": {"model": "TrimeMT", "memory": "trainable"}}}, "memory: trainable: one of trime"),
        ({"rows": {}, "against": []}, "rows and against: none is there"),
        ({"against": ["TrimeMT", "nobody"]}, "against: a list of rows"),
        ({"metrics": {"TrimeMT": "cos"}}, "metrics: TrimeMT: cos: a model, with one of ip, l2"),
        ({"times": {"other": 2}}, "times: other is not among the models"),
        ({"times": {"TrimeMT": 0.5}}, "times: TrimeMT must be a whole number, not 0.5"),
        ({"updates": 0}, "updates must be positive, not 0"),
        ({"lenpen": []}, "lenpen: a list of numbers"),
        ({"lenpen": ["x"]}, "lenpen: a list of numbers"),
        ({"source_lang": False}, "source_lang: a language such as de, in quotes, not False"),
        ({"training": "'"}, "training: No closing quotation"),
    ],
)
def test_refuses(tmp_path, change, message):
    content = {**EXPERIMENT, **change}
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({key: entry for key, entry in content.items() if entry is not None}))
    log = reproduce(path, tmp_path / "out", "--dry-run", fails=True)
    assert message in log
    assert str(path) in log
    assert "Traceback" not in log


def test_refuses_another_number_of_updates(tmp_path):
    folder = tmp_path / "models" / "Transformer-seed1"
    folder.mkdir(parents=True)
    (folder / "updates.txt").write_text("6\n")
    log = reproduce(PROOF, tmp_path, "--dry-run", "--updates", 7, fails=True)
    assert "Transformer-seed1 holds a model of 6 updates: name another --out" in log


def translated(change, sentences=40, speed=20.0):
    """References of ten words, and hypotheses in which ``change(number)`` words are wrong."""
    references = {
        number: " ".join(f"w{number * 7 + place}" for place in range(10)) for number in range(sentences)
    }
    hypotheses = {}
    for number, line in references.items():
        words = line.split()
        words[: change(number)] = ["no"] * change(number)
        hypotheses[number] = " ".join(words)
    return quality.Translated(hypotheses, references, speed)


@pytest.fixture(scope="module")
def compared():
    rows = {
        "plain": translated(lambda number: 4),
        "same": translated(lambda number: 4, speed=11.0),
        # Of two sentences one is better, the other as much worse.
        "noise": translated(lambda number: 3 if number % 2 else 5),
        "better": translated(lambda number: 2),
    }
    return quality.compare(rows, ["plain", "better"])


def test_paired_bootstrap(compared):
    assert compared["better"]["bleu"] > compared["plain"]["bleu"] + 10
    assert compared["better"]["chrf"] > compared["plain"]["chrf"]
    assert compared["better"]["p_bleu"]["plain"] < 0.01
    assert compared["better"]["p_chrf"]["plain"] < 0.01
    assert compared["same"]["p_bleu"]["plain"] == 1.0
    assert compared["noise"]["p_bleu"]["plain"] > 0.05
    assert compared["plain"]["p_bleu"] == {"better": compared["better"]["p_bleu"]["plain"]}
    for row in compared.values():
        low, high = row["bleu_interval"]
        assert low - 1e-4 <= row["bleu"] <= high + 1e-4
        assert row["length_ratio"] == 1.0
    assert compared["same"]["sentences_per_second"] == 11.0


def test_bleu_is_that_of_sacrebleu(compared):
    from sacrebleu import corpus_bleu

    row = translated(lambda number: 3 if number % 2 else 5)
    expected = corpus_bleu(list(row.hypotheses.values()), [list(row.references.values())])
    assert compared["noise"]["bleu"] == pytest.approx(expected.score)


def test_table(compared):
    lines = table(compared, ["plain", "better"]).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == 8
    (plain,) = [line for line in lines if line.startswith("| plain ")]
    assert plain.split("|")[6].strip() == "-"
    (same,) = [line for line in lines if line.startswith("| same ")]
    assert same.split("|")[6].strip() == "1.000, 1.000"


def test_other_texts_are_not_compared():
    rows = {"a": translated(lambda number: 1), "b": translated(lambda number: 1, sentences=39)}
    with pytest.raises(ValueError, match="b was translated from another text than a"):
        quality.compare(rows, ["a"])


OUTPUT = """S-1\tuno
T-1\tone thing
H-1\t-0.5\tone th@@ ing
D-1\t-0.5\tone thing
P-1\t-0.1 -0.2
T-0\t
D-0\t-0.1\t
2026 | INFO | Translated 1,021 sentences (30 tokens) in 2.0s (510.50 sentences/s, 15.00 tokens/s)
"""


def test_reads_what_fairseq_prints(tmp_path):
    log = tmp_path / "log"
    log.write_text(OUTPUT)
    found = quality.read_translations(log)
    assert found.hypotheses == {1: "one thing", 0: ""}
    assert found.references == {1: "one thing", 0: ""}
    assert found.sentences_per_second == 510.5


@pytest.mark.parametrize("missing", ["D-0", "T-0", "2026"])
def test_refuses_what_is_not_complete(tmp_path, missing):
    log = tmp_path / "log"
    log.write_text("".join(line for line in OUTPUT.splitlines(True) if not line.startswith(missing)))
    with pytest.raises(ValueError, match="it is not complete, remove it"):
        quality.read_translations(log)


@pytest.mark.slow
@pytest.mark.process
def test_trains_tunes_compares_and_continues(tmp_path):
    pytest.importorskip("subword_nmt")
    pairs = sentences(120)
    write_pair(tmp_path / "my", {"train": pairs[:100], "valid": pairs[100:110], "test": pairs[110:]})
    training = EXPERIMENT["training"].replace("128", "16").replace("512", "32").replace(" 4 ", " 2 ")
    names = ("Transformer", "TrimeMT")
    experiment = {
        **EXPERIMENT,
        **{"source_lang": "de", "target_lang": "en", "bpe": 40, "training": training, "updates": 3},
        **{"index": "--factory Flat", "k": 2, "decode": 1, "lenpen": [0.6, 1.0]},
        **{"rows": {name: EXPERIMENT["rows"][name] for name in names}, "against": ["Transformer"]},
    }
    flags = shlex.split(experiment["models"]["TrimeMT"])
    experiment["models"] = {
        **experiment["models"],
        "TrimeMT": shlex.join(flags[: flags.index("--predefined-batches")]),
    }
    path, out = tmp_path / "small.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(experiment, sort_keys=False))
    log = reproduce(path, out, text=tmp_path / "my")
    lines = [line for line in log.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines] == ["", *names]
    results = json.loads((out / "results-seed1.json").read_text())
    assert results["sentences"] == 10
    assert [row["updates"] for row in results["rows"].values()] == [3, 6]
    assert (out / "results-seed1.md").read_text().splitlines()[0] == lines[0]
    for name, row in results["rows"].items():
        memory = row["settings"]["memory"]
        assert ("--use-knn-datastore" in memory) == ("memory" in EXPERIMENT["rows"][name])
        assert row["settings"]["lenpen"] in (0.6, 1.0)
        # What fairseq says of the same translations.
        (printed,) = [
            line
            for line in (out / f"rows-seed1/{file_name(name)}/test.txt").read_text().splitlines()
            if line.startswith("Generate test with beam=4: BLEU = ")
        ]
        assert float(printed.split("BLEU = ")[1].split()[0]) == pytest.approx(row["bleu"], abs=0.006)
    made = {file: file.stat().st_mtime_ns for file in out.glob("[mr]*/**/*") if file.is_file()}
    again = reproduce(path, out, text=tmp_path / "my")
    assert [line for line in again.splitlines() if line.startswith("| ")] == lines
    assert {file: file.stat().st_mtime_ns for file in made} == made
