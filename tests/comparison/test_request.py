"""YAML and flags of trime-compare: what they mean, and every refusal before a model runs."""

import pytest
import yaml

from trime_fairseq.cli import compare as command
from trime_fairseq.comparison import Memory, Search, read_arguments, read_memory

FILES = ("dict.txt", "valid.idx", "valid.bin", "test.idx", "test.bin", "train2.idx", "train2.bin")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with all files that a comparison may name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    for name in (*(f"bin/{name}" for name in FILES), "a.pt", "b.pt", "c.pt", "store_vals.npy", "knn.ip"):
        (tmp_path / name).write_text("x")
    return tmp_path


PLAIN = {"checkpoint": "a.pt", "memories": "none"}
STORE = {"dstore_filename": "store", "indexfile": "knn.ip"}


def content(**changes):
    models = {
        "plain LM": {"checkpoint": ["a.pt", "b.pt"], "memories": ["none", "cache 16"]},
        "TrimeLM": {"checkpoint": "c.pt", "memories": ["local", "local+long 8 + external"]},
    }
    models["TrimeLM"]["datastore"] = {
        **STORE,
        "k": 64,
        "probe": 8,
        "no-load-keys": True,
        "dstore_fp16": False,
    }
    return {"data": "bin", "evaluation": "--tokens-per-sample 256 --cpu", "models": models, **changes}


def read(here, content, *words):
    (here / "c.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return read_arguments(["c.yaml", *words])


def test_file(here):
    found = read(here, content())
    assert (found.data, found.tune, found.test, found.output) == ("bin", "valid", "test", "comparison")
    assert found.baseline == ("plain LM", Memory())
    plain, trime = found.models
    assert plain.name == "plain LM"
    assert plain.checkpoints == ("a.pt", "b.pt")
    assert plain.memories == (Memory(), read_memory("cache 16"))
    assert plain.searches == ()
    assert plain.evaluation == ("--tokens-per-sample", "256", "--cpu")
    assert trime.memories == (read_memory("local"), read_memory("local + long 8 + external"))
    flags = "--dstore-filename store --indexfile knn.ip --probe 8 --no-load-keys"
    assert trime.searches == (Search(tuple(flags.split()), 64),)


def test_flags_say_the_same(here):
    words = [
        "bin",
        "--model",
        "plain LM=a.pt,b.pt",
        "--memories",
        "none, cache 16",
        "--model",
        "TrimeLM=c.pt",
    ]
    words += ["--memories", "local,local + long 8 + external", "--tokens-per-sample", "256", "--cpu"]
    store = "{dstore_filename: store, indexfile: knn.ip, k: 64, probe: 8, no_load_keys: true}"
    assert read_arguments([*words, "--datastore", store]) == read(here, content())


def test_command_line_beside_a_file(here):
    flags = "--output out --baseline TrimeLM,local --tune train2 --test valid --batch-size 8".split()
    found = read(here, content(), *flags)
    assert (found.tune, found.test, found.output) == ("train2", "valid", "out")
    assert found.baseline == ("TrimeLM", read_memory("local"))
    assert found.models[0].evaluation == ("--tokens-per-sample", "256", "--cpu", "--batch-size", "8")


def test_flags_of_one_model(here):
    models = content()["models"]
    models["plain LM"]["evaluation"] = ["--knn-keytype", "last_ffn_output", "--memory-impl", "naive"]
    found = read(here, content(models=models, evaluation=["--tokens-per-sample", 256]))
    assert found.models[0].evaluation == (
        *("--tokens-per-sample", "256", "--knn-keytype", "last_ffn_output", "--memory-impl", "naive"),
    )
    assert found.models[1].evaluation == ("--tokens-per-sample", "256")


@pytest.mark.parametrize(
    ("baseline", "row"),
    [
        ("TrimeLM, LONG 8 + local+external", ("TrimeLM", "local + long 8 + external")),
        ("plain LM, cache 16", ("plain LM", "cache 16")),
        ("plain LM", ("plain LM", "none")),
    ],
)
def test_baselines(here, baseline, row):
    name, memory = read(here, content(baseline=baseline)).baseline
    assert (name, str(memory)) == row


def of_model(**changes):
    """A comparison whose TrimeLM differs."""
    found = content()
    found["models"]["TrimeLM"] |= changes
    return found


def without(key):
    found = content()
    del found["models"]["TrimeLM"][key]
    return found


WRONG = [
    (content(modles={}), "modles: no such key; there are data, evaluation"),
    (content(data=None), "data: missing"),
    (content(data=3), "data: must be a text, not 3"),
    (content(data="nowhere"), "data: nowhere holds no dict.txt: make it with fairseq-preprocess"),
    (content(tune="dev"), "tune: there is no bin/dev.idx: name a subset of data"),
    (content(test="dev"), "test: there is no bin/dev.idx: name a subset of data"),
    (content(tune="test"), "tune: test is the test subset, too"),
    (content(models={}), "models: missing"),
    (content(models=["a.pt"]), "models: missing"),
    (content(models={5: {}}), "models: 5: the name of a model is a text"),
    (content(models={"a": {**PLAIN}, "a ": {**PLAIN}}), "models: a is there 2 times: leave one"),
    (content(models={"a": "a.pt"}), "models: a: needs the keys checkpoint and memories"),
    (content(baseline="nobody"), r"baseline: no row is nobody: .* TrimeLM, local; .*plain LM, cache 16"),
    (content(baseline="TrimeLM"), "baseline: no row is TrimeLM: give the model the memory none"),
    (content(baseline=["plain LM"]), "baseline: no row is"),
    (content(evaluation=5), "evaluation: flags of fairseq-eval-lm as one text, not 5"),
    (content(evaluation="--data '"), "evaluation: No closing quotation"),
    (
        content(evaluation="--use-local"),
        "evaluation: --use-local: give the model this memory, under memories",
    ),
    (content(evaluation="--softmax-temp=2"), "evaluation: --softmax-temp: give the model this memory"),
    (content(evaluation="--k 4"), "evaluation: --k: give it to the model, under datastore"),
    (content(evaluation="--indexfile x"), "evaluation: --indexfile: give it to the model, under datastore"),
    (content(evaluation="--path a.pt"), "evaluation: --path: name the file under models: checkpoint"),
    (content(evaluation="--gen-subset test"), "evaluation: --gen-subset: name the subset under test"),
    (content(evaluation="--num-shards 2"), "evaluation: --num-shards: leave it out: one process"),
    (content(evaluation="--distributed-world-size 2"), "--distributed-world-size: leave it out: one process"),
    (content(evaluation="--save-knnlm-dstore"), "--save-knnlm-dstore: write the datastore first"),
    (of_model(evaluation="--mode li"), "models: TrimeLM: evaluation: --mode: give the model this memory"),
    (of_model(seed=1), "models: TrimeLM: seed: no such key; there are checkpoint, memories"),
    (of_model(checkpoint="d.pt"), "models: TrimeLM: checkpoint: there is no file d.pt"),
    (of_model(checkpoint=[]), "models: TrimeLM: checkpoint: missing: it is a file, or a list"),
    (of_model(checkpoint=["c.pt", 5]), "models: TrimeLM: checkpoint: 5 must be a text"),
    (of_model(checkpoint=["c.pt", "c.pt"]), "models: TrimeLM: checkpoint: c.pt is there 2 times: leave one"),
    (without("memories"), "models: TrimeLM: memories: missing: it is a list, such as"),
    (of_model(memories=["locl"]), "models: TrimeLM: memories: no such memory: 'locl'. Memories are none"),
    (of_model(memories=["local", " local"]), "models: TrimeLM: memories: local is there 2 times: leave one"),
    (without("datastore"), "memory 'local . long 8 . external' searches a datastore: add datastore: {dstore"),
    (of_model(memories=["local"]), "models: TrimeLM: datastore: none of its memories searches one: leave"),
    (of_model(datastore="store"), "datastore: needs the keys dstore_filename and indexfile"),
    (of_model(datastore=[STORE, STORE]), r"datastore: 1 checkpoint\(s\) need one, not 2"),
    (of_model(checkpoint=["a.pt", "c.pt"]), r"datastore: 2 checkpoint\(s\) need a list of as many, not 1"),
    (of_model(datastore={"indexfile": "knn.ip"}), "datastore: dstore_filename: missing: it is a path"),
    (of_model(datastore={**STORE, "K": 4}), "datastore: K: no such key; there are dstore_filename"),
    (of_model(datastore={**STORE, "k": 0}), "datastore: k: must be a positive integer, not 0"),
    (of_model(datastore={**STORE, "k": "64"}), "datastore: k: must be a positive integer, not '64'"),
    (of_model(datastore={**STORE, "k": 10**9}), "datastore: k: must be at most 1,048,576, not 1000000000"),
    (of_model(datastore={**STORE, "probe": 0}), "datastore: probe: must be positive, not 0"),
    (of_model(datastore={**STORE, "probe": 8.0}), "datastore: probe: must be an integer, not 8.0"),
    (of_model(datastore={**STORE, "check_recall": "9"}), "check_recall: must be an integer, not '9'"),
    (of_model(memories=["cache " + "9" * 5000]), "cache 9{54}: the size must be at most 1,099,511,627,776"),
    (
        of_model(datastore={**STORE, "indexfile": "knn"}),
        "datastore: indexfile: knn does not exist, but knn.ip: pass that",
    ),
    (of_model(datastore={**STORE, "probe": [8]}), r"datastore: probe: must be one value, not \[8\]"),
    (
        of_model(datastore={**STORE, "indexfile": "a.ip"}),
        "indexfile: there is no file a.ip: build it by trime",
    ),
    (
        of_model(datastore={**STORE, "dstore_filename": "a"}),
        "dstore_filename: there is no file a_vals.npy: wri",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[message for _, message in WRONG])
def test_refusals(here, wrong, message, capsys):
    with pytest.raises(ValueError, match=message):
        read(here, wrong)
    assert command.main(["c.yaml"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trime-compare: error: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "data: bin\nmodels:\n  a: {checkpoint: a.pt}\n  a: {checkpoint: b.pt}\n",
            "a: there 2 times, .* line 3",
        ),
        ("data: bin\ndata: bin\n", "data: there 2 times, in what begins at line 1: leave one"),
        ("models: {", "c.yaml is no YAML: "),
        ("!!python/object/apply:os.getcwd []", "c.yaml is no YAML: "),
        ("? [1, 2]\n: 3\n", "needs|no such key|no YAML"),
        ("- 1", "c.yaml: needs the keys data and models"),
        ("", "c.yaml: needs the keys data and models"),
    ],
)
def test_files_that_are_none(here, text, message):
    (here / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_arguments(["c.yaml"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["d.yaml"], "there is no file d.yaml"),
        (["bin"], "--model NAME=CHECKPOINT is missing; or name a YAML file"),
        (["bin", "--model", "a.pt"], "--model a.pt: must be NAME=CHECKPOINT"),
        (["bin", "--model", "a=a.pt", "--model", "a=b.pt"], "--model a: two models of this name"),
        (
            ["bin", "--memories", "none", "--model", "a=a.pt"],
            "--memories none: belongs to the --model before",
        ),
        (["bin", "--model", "a=a.pt", "--memories", "none", "--memories", "cache"], "has memories already"),
        (["bin", "--model", "a=a.pt", "--datastore", "{"], "--datastore is no YAML"),
        (["c.yaml", "--model", "a=a.pt"], "--model: c.yaml names the models: leave one of them out"),
    ],
)
def test_command_lines(here, words, message):
    (here / "c.yaml").write_text(yaml.safe_dump(content(), sort_keys=False))
    with pytest.raises(ValueError, match=message):
        read_arguments(words)
