"""trime-build-index --streaming: index and values straight from the model."""

import sys

import pytest

from tests.commands import REFERENCE, evaluate, evaluation_command, run
from trime_fairseq.datastore import open_datastore

pytestmark = pytest.mark.process

TEXT = "--context-window 96 --max-tokens 4096 --batch-size 32 --gen-subset test"
SMALL = "--ncentroids 32 --code_size 8 --dstore_fp16 --num_keys_to_add_at_a_time 2000 --dist ip"


def build(folder, *more, fails=False):
    prefix = ["--dstore_mmap", folder / "d", "--faiss_index", folder / "knn.index"]
    return run(
        sys.executable, "-m", "trime_fairseq.cli.build_index", *prefix, *SMALL.split(), *more, fails=fails
    )


@pytest.mark.slow
def test_streamed_as_built_from_stored_keys(tmp_path, small):
    """The same index and values without the keys, where training takes all keys in the order of the text."""
    stored, streamed = tmp_path / "stored", tmp_path / "streamed"
    for folder in (stored, streamed):
        folder.mkdir()
    write = f"{TEXT} --save-knnlm-dstore --dstore-fp16 --dstore-mmap"
    run(*evaluation_command("word-trime_ext", f"{write} {stored}/d", small))
    build(stored)
    evaluation = evaluation_command("word-trime_ext", TEXT, small)[1:]
    log = build(streamed, "--streaming", *evaluation)
    assert "Loss (base 2)" in log
    assert sorted(path.name for path in streamed.iterdir()) == [
        "d.json",
        "d_vals.npy",
        "knn.index.ip",
        "knn.index.ip.json",
        "knn.index.ip.trained",
        "knn.index.ip.trained.json",
    ]
    assert (streamed / "d_vals.npy").read_bytes() == (stored / "d_vals.npy").read_bytes()
    # Both trained on all 4,000 keys, so the lists and codes are the same to the bit.
    assert (streamed / "knn.index.ip").read_bytes() == (stored / "knn.index.ip").read_bytes()
    assert not open_datastore(str(streamed / "d")).manifest.keys_stored

    again = build(streamed, "--streaming", *evaluation)
    assert "there already" in again
    search = f"{TEXT} --use-external --k 16 --probe 8 --dstore-filename {streamed}/d --indexfile"
    result = evaluate(tmp_path, "word-trime_ext", f"{search} {streamed}/knn.index.ip", small)
    assert result["tokens"] == open_datastore(str(streamed / "d")).rows
    log = run(
        *evaluation_command("word-trime_ext", f"{search} {streamed}/knn.index.ip --check-recall 9", small),
        fails=True,
    )
    assert "its keys were never stored" in log.splitlines()[-1]


def test_what_streaming_refuses(tmp_path):
    path = REFERENCE / "checkpoints" / "word-trime_ext" / "checkpoint_best.pt"
    evaluation = ["--streaming", REFERENCE / "data" / "word", "--path", path]
    assert "leave out --num-shards" in build(tmp_path, *evaluation, "--num-shards", 2, fails=True)
    several = build(tmp_path, *evaluation, "--distributed-world-size=2", fails=True)
    assert "leave out --distributed-world-size" in several
    assert "no --do_train_only" in build(tmp_path, *evaluation, "--do_train_only", fails=True)
