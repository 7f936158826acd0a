"""trime-datastore: what it says about stores and indexes, whole and damaged."""

import json
import os
import shutil

import numpy as np
import pytest
from fairseq.data import Dictionary

from tests.fuzzing.mutations import flip
from trime_fairseq.cli.datastore import main
from trime_fairseq.datastore import DatastoreError, DatastoreWriter, IndexConfig
from trime_fairseq.datastore.dictionary import read_symbols
from trime_fairseq.files import symbols_hash, text_hash

from .small_stores import CONFIG, DIMENSION, ROOT, ROWS, build, small_manifest, small_rows, stream

faiss = pytest.importorskip("faiss")
REFERENCE = ROOT / "tests" / "reference"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store with an index and a dictionary, as they are written."""
    folder = tmp_path_factory.mktemp("whole")
    words = Dictionary()
    for word in range(46):
        words.add_symbol(f"w{word}")
    words.save(str(folder / "dict.txt"))
    manifest = small_manifest(metric="ip", dictionary_hash=text_hash("\n".join(words.symbols)))
    writer = DatastoreWriter(str(folder / "dstore"), manifest, 0, ROWS)
    writer.write(0, *small_rows())
    writer.finish()
    writer.close()
    build(folder, IndexConfig("ip", DIMENSION, "IVF8,PQ4", training_keys=700))
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


def run(capsys, *words):
    status = main(list(map(str, words)))
    said = capsys.readouterr()
    return status, said.out.splitlines(), said.err


def verify(capsys, folder, *more):
    words = ["--indexfile", folder / "knn.ip", "--dictionary", folder]
    return run(capsys, "verify", folder / "dstore", *words, *more)


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_nothing_wrong(whole, capsys):
    assert verify(capsys, whole) == (0, [f"{whole}/dstore: nothing wrong was found"], "")


def no_number(folder):
    keys = small_rows()[0]
    keys[[7, 1300], 3] = np.nan, np.inf
    keys.tofile(folder / "dstore-fp16_keys.npy")


def twice(folder):
    index = faiss.read_index(str(folder / "knn.ip"))
    ids = faiss.rev_swig_ptr(index.invlists.get_ids(0), index.invlists.list_size(0))
    ids[0] = ids[1]
    faiss.write_index(index, str(folder / "knn.ip"))
    (folder / "knn.ip.json").unlink()


def other_values(folder):
    values = small_rows()[1]
    values[3] = 50
    values.tofile(folder / "dstore_vals.npy")
    change_json(folder / "dstore.json", values_checksum=None)
    change_json(folder / "knn.ip.json", values_checksum=None)


def other_words(folder):
    lines = (folder / "dict.txt").read_text().splitlines()
    (folder / "dict.txt").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")


DAMAGE = {
    "values": (lambda f: flip(f / "dstore_vals.npy"), "dstore_vals.npy is not what was written"),
    "keys": (lambda f: flip(f / "dstore-fp16_keys.npy"), "dstore-fp16_keys.npy is damaged: its checksum"),
    "index": (lambda f: flip(f / "knn.ip"), "knn.ip is damaged: its checksum"),
    "keys cut off": (lambda f: os.truncate(f / "dstore-fp16_keys.npy", 7), "has 7 of 48,000 bytes"),
    "values gone": (lambda f: (f / "dstore_vals.npy").unlink(), "dstore_vals.npy is not there"),
    "index gone": (lambda f: (f / "knn.ip").unlink(), "knn.ip is not complete"),
    "unfinished": (lambda f: change_json(f / "dstore.json", complete=False), "is not complete"),
    "dictionary": (other_words, "was made with another dictionary"),
    "manifest": (lambda f: change_json(f / "dstore.json", rows="1500"), "rows must be an integer"),
    "metric": (lambda f: change_json(f / "knn.ip.json", metric="l2", checksum=None), "is not the index that"),
    "store": (lambda f: change_json(f / "knn.ip.json", datastore="x"), "built from another datastore"),
    "no number": (no_number, "keys of 2 rows (7, 1300) hold NaN or infinity"),
    "ids": (twice, "lacks 1 rows of the datastore, others are there twice"),
    "range": (other_values, "holds the token 50, but the dictionary (DATA/dict.txt) has 50 symbols"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_one_line_for_each_problem(copy, capsys, kind):
    damage, message = DAMAGE[kind]
    damage(copy)
    status, lines, errors = verify(capsys, copy)
    problems = [line for line in lines if line.startswith("problem: ")]
    assert status == 1
    if kind == "manifest":
        # Nothing more can be known without it.
        assert (problems, lines) == ([], [])
        assert errors.startswith("trime-datastore: error: ")
        assert message in errors
        return
    assert errors == ""
    assert [line for line in problems if message in line]
    assert len(problems) > 1 if kind == "no number" else len(problems) == 1
    assert f"{len(problems)} problem" in lines[-1]


def test_all_problems_at_once(copy, capsys):
    for kind in ("values", "keys", "index", "dictionary"):
        DAMAGE[kind][0](copy)
    status, lines, _ = verify(capsys, copy)
    assert (status, lines[-1]) == (1, f"{copy}/dstore: 4 problems")


def test_what_cannot_be_known_is_said(capsys, tmp_path):
    """A store of the published tools, and one of an earlier version."""
    data = REFERENCE / "datastore"
    words = ["--indexfile", data / "knn.index.ip", "--dictionary", REFERENCE / "data" / "word"]
    status, lines, _ = run(capsys, "verify", data / "dstore", *words)
    assert status == 0
    assert [line.split(":")[0] for line in lines[:-1]] == ["not checked"] * 2
    assert "has no manifest" in lines[0]
    status, lines, _ = run(capsys, "verify", data / "dstore")
    assert "--dictionary" in lines[1]


def test_streamed_store(tmp_path, capsys):
    stream(tmp_path, CONFIG)
    words = ["verify", tmp_path / "dstore", "--indexfile", tmp_path / "knn.l2"]
    assert run(capsys, *words)[0] == 0
    flip(tmp_path / "dstore_vals.npy")
    assert run(capsys, *words)[0] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "{0}/none"], "there is no datastore {0}/none: check the prefix"),
        (["info", "{0}/none"], "{0}/none is neither the prefix of a datastore nor an index"),
        (["verify", "{0}/dstore", "--dictionary", "{0}/none"], "--dictionary {0}/none: there is no"),
        (["verify", "{0}/dstore", "--dictionary", "{0}/dstore.json"], "line 1 is not a symbol and its count"),
        (["info", "{0}/dict"], "{0}/dict is neither"),
    ],
)
def test_wrong_arguments(whole, capsys, words, message):
    status, lines, errors = run(capsys, *(word.format(whole) for word in words))
    assert (status, lines, errors.count("\n")) == (1, [], 1)
    assert message.format(whole) in errors


def test_info(whole, copy, capsys):
    status, lines, _ = run(capsys, "info", whole / "dstore")
    said = dict(line.split(":", 1) for line in lines)
    assert status == 0
    assert (said["complete"].strip(), said["rows"].strip()) == ("yes", "1,500")
    assert said["keys"].strip() == "16 x float16, last_ffn_input"
    assert said["dstore-fp16_keys.npy"].strip() == "48,000 bytes"
    status, lines, _ = run(capsys, "info", whole / "knn.ip")
    said = dict(line.split(":", 1) for line in lines)
    assert said["keys"].strip() == "1,500 of dimension 16, from row 0 on"
    assert (said["metric"].strip(), said["factory"].strip()) == ("ip", "IVF8,PQ4")
    assert said["lists"].strip().startswith("8, 8 searched by default")
    os.truncate(copy / "knn.ip", 10)
    assert "no: " in run(capsys, "info", copy / "knn.ip")[1][1]
    os.truncate(copy / "dstore_vals.npy", 10)
    assert "dstore_vals.npy has 10 of 12,000 bytes" in run(capsys, "info", copy / "dstore")[1][1]


def test_info_of_what_is_being_written(tmp_path, capsys):
    writer = DatastoreWriter(str(tmp_path / "dstore"), small_manifest(num_shards=2), 0, 1000, 0, note_every=0)
    keys, values = small_rows()
    writer.write(0, keys[:300], values[:300])
    lines = run(capsys, "info", tmp_path / "dstore")[1]
    writer.close()
    assert [" ".join(line.split()) for line in lines[1:4]] == [
        "complete: no",
        "shard 0 of 2: 300 of 1,000 rows",
        "shard 1 of 2: not begun",
    ]


def test_symbols_are_those_of_fairseq(tmp_path):
    path = REFERENCE / "data" / "word"
    theirs = Dictionary.load(str(path / "dict.txt"))
    assert read_symbols(str(path)) == theirs.symbols
    assert symbols_hash(theirs.symbols) == text_hash("\n".join(theirs.symbols))
    (tmp_path / "dict.txt").write_text("a 3\n<unk> 2 #fairseq:overwrite\nb c 1\n")
    assert read_symbols(str(tmp_path / "dict.txt")) == Dictionary.load(str(tmp_path / "dict.txt")).symbols
    (tmp_path / "dict.txt").write_text("a 3\nb\n")
    with pytest.raises(DatastoreError, match="line 2 is not a symbol"):
        read_symbols(str(tmp_path))
