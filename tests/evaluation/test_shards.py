"""Shards of separate commands: files of others, and places where nothing can be written."""

import json
import logging
import os

import pytest

from tests.commands import evaluate_here
from trime_fairseq.evaluation import EvaluationResult, rescue
from trime_fairseq.evaluation.rescue import write_or_rescue
from trime_fairseq.evaluation.result import Shard
from trime_fairseq.evaluation.shards import merge_shard_files, read_shard, write_result

GOOD = EvaluationResult(10, 1.0, 25.0, 30.0, 0.2, 0.3, {}, {"stage_seconds": {"model": 0.5}}).as_json()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON file"),
        ("[" * 100_000, "is no JSON file"),
        ("[]", "is no result of an evaluation"),
        ('"text"', "is no result of an evaluation"),
        ("{}", "seconds must be a number of at least 0, not None"),
        ({"tokens": "10"}, "tokens must be an integer of at least 0, not '10'"),
        ({"tokens": -1}, "tokens must be an integer"),
        ({"tokens": 1.5}, "tokens must be an integer"),
        ({"tokens": True}, "tokens must be an integer"),
        ({"tokens": 10**30}, "tokens must be an integer"),
        ({"nll_nats": "x"}, "nll_nats must be a number of at least 0, not 'x'"),
        ({"nll_nats": -1.0}, "nll_nats must be a number"),
        ({"mem_mass": None}, "mem_mass must be a number"),
        ({"seconds": [1]}, "seconds must be a number"),
        ({"stage_seconds": [1]}, "stage_seconds must be numbers"),
        ({"stage_seconds": {"model": "1"}}, "stage_seconds must be numbers"),
        ({"text_units": {"words": 3}}, "text_units must be counts"),
        ({"text_units": 3}, "text_units must be counts"),
        ({"recall_queries": 3}, "recall_at_1 and recall_at_k must be numbers"),
        ({"recall_queries": -3}, "recall_queries must be an integer"),
        ({"zero_probability_tokens": "1"}, "zero_probability_tokens must be an integer"),
    ],
)
def test_damaged_files(content, message, tmp_path):
    path = tmp_path / "f.json.shard-0-of-2"
    path.write_text(content if isinstance(content, str) else json.dumps({**GOOD, **content}))
    with pytest.raises(ValueError, match=f"{message}.*: remove it and evaluate that shard again$") as error:
        read_shard(str(path))
    assert str(path) in str(error.value)


def test_files_of_earlier_versions(tmp_path):
    """Without the count of tokens of probability 0."""
    old = {name: value for name, value in GOOD.items() if name != "zero_probability_tokens"}
    path = tmp_path / "f"
    path.write_text(json.dumps(old))
    assert EvaluationResult.merge([read_shard(str(path))] * 2, {}).zero_probability_tokens == 0


def test_an_infinite_shard_makes_the_whole_infinite(tmp_path):
    bad = EvaluationResult(10, 1.0, float("inf"), 30.0, 0.2, 0.3, zero_probability_tokens=2)
    for number, result in enumerate((GOOD, bad.as_json())):
        (tmp_path / f"f.json.shard-{number}-of-2").write_text(json.dumps(result))
    merge_shard_files(bad, str(tmp_path / "f.json"), 2)
    whole = json.loads((tmp_path / "f.json").read_text())
    assert (whole["loss"], whole["nll_nats"], whole["zero_probability_tokens"]) == (None, None, 2)
    assert (whole["tokens"], whole["num_shards"]) == (20, 2)
    assert whole["nll_nats_without_memory"] == 60.0


class Model(Exception):
    """It would run now."""


@pytest.fixture
def no_model(monkeypatch):
    def fail(*unused):
        raise Model

    monkeypatch.setattr("trime_fairseq.evaluation.scorer.MemoryScorer.generate", fail)


SHARDS = "--use-local --num-shards 2 --shard-id 0"


def test_others_files_are_read_before_the_model_runs(small, tmp_path, no_model):
    flags = f"{SHARDS} --eval-file {tmp_path}/f.json"
    (tmp_path / "f.json.shard-1-of-2").write_text("{")
    with pytest.raises(ValueError, match="shard-1-of-2 is no JSON file.*: remove it and"):
        evaluate_here("word-trime", flags, small)
    (tmp_path / "f.json.shard-1-of-2").unlink()
    # One's own file will be written anew.
    (tmp_path / "f.json.shard-0-of-2").write_text("{")
    with pytest.raises(Model):
        evaluate_here("word-trime", flags, small)


def test_planted_link_is_replaced(tmp_path):
    """Nobody chose the name of a shard's file; the name of the whole is a user's."""
    (tmp_path / "mine").write_text("mine")
    for name in ("shard", "whole"):
        (tmp_path / name).symlink_to("mine")
    write_result(str(tmp_path / "shard"), {"tokens": 1}, follow_links=False)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "shard").is_symlink()
    write_result(str(tmp_path / "whole"), {"tokens": 2})
    assert json.loads((tmp_path / "mine").read_text()) == {"tokens": 2}


def test_more_shards_than_batches(small, no_model):
    flags = "--max-tokens 1024 --num-shards 500 --shard-id 499"
    with pytest.raises(ValueError, match=r"--num-shards 500: the text has \d batches, so --shard-id 499 has"):
        evaluate_here("word-trime", flags, small)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num-shards 2 --shard-id 7", "--shard-id 7 is none of --num-shards 2"),
        ("--num-shards 2 --shard-id -1", "--shard-id must not be negative: -1"),
        ("--num-shards 0", "--num-shards must be positive, not 0"),
        ("--batch-size 0", "--batch-size must be positive, not 0"),
        ("--batch-size -1", "--batch-size must be positive, not -1"),
        ("--max-tokens 0", "--max-tokens must be positive, not 0"),
        ("--tokens-per-sample 0", "--tokens-per-sample must be positive, not 0"),
        ("--tokens-per-sample 1000000000000", "--tokens-per-sample must be at most 2,147,483,647"),
        ("--tokens-per-sample -4", "--tokens-per-sample must be positive, not -4"),
        ("--seed -1", "--seed must not be negative: -1"),
        ("--softmax-batch -1", "--softmax-batch must not be negative: -1"),
        ("--num-workers -1", "--num-workers must not be negative: -1"),
        ("--train-mem-size -1", "--train-mem-size must not be negative: -1"),
    ],
)
def test_fairseqs_own_flags(flags, message, small, no_model):
    with pytest.raises(ValueError, match=message):
        evaluate_here("word-trime", flags, small)


def test_triton_on_the_cpu(small, no_model, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="--memory-impl triton needs a GPU"):
        evaluate_here("word-trime", "--use-local --memory-impl triton", small)
    with pytest.raises(Model):
        evaluate_here("word-trime", "--memory-impl triton", small)


def test_memories_larger_than_the_text(small, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    flags = "--context-window 96 --batch-size 8 --use-local --use-long --mem-size"
    all_of_it = evaluate_here("word-trime", f"{flags} 5000", small)
    assert f"--mem-size 5,000 is all of the text, {all_of_it.tokens:,} tokens" in caplog.text
    larger = evaluate_here("word-trime", f"{flags} 1000000000000", small)
    assert larger.nll_nats == all_of_it.nll_nats
    monkeypatch.setattr("trime_fairseq.evaluation.capacity.memory_size", lambda: 2**20)
    with pytest.raises(
        ValueError, match=r"--mem-size 5000 needs 0\.0 GiB for the keys of 4,\d+ tokens; this"
    ):
        evaluate_here("word-trime", f"{flags} 5000", small)


def test_nothing_left_to_evaluate(small, tmp_path, caplog):
    """A datastore that is complete: fairseq would print a perplexity of 1."""
    caplog.set_level(logging.INFO)
    flags = f"--batch-size 8 --save-knnlm-dstore --dstore-mmap {tmp_path}/d --eval-file {tmp_path}/f.json"
    assert evaluate_here("word-trime", flags, small).tokens > 4000
    (tmp_path / "f.json").unlink()
    caplog.clear()
    assert evaluate_here("word-trime", flags, small).tokens == 0
    assert "nothing was left to evaluate" in caplog.messages[-1]
    assert "Perplexity" not in caplog.text
    assert not (tmp_path / "f.json").exists()


def full(path):
    raise OSError(28, "No space left on device", path)


def test_a_result_that_cannot_be_written_is_written_elsewhere(tmp_path, monkeypatch):
    written = []

    def write(path):
        if path.startswith("/full"):
            full(path)
        written.append(path)

    monkeypatch.setattr(rescue.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ValueError, match=r"^--output /full/r.json: No space left on device; the result was"):
        write_or_rescue("--output", "/full/r.json", write, "nothing")
    (place,) = written
    assert os.path.dirname(os.path.dirname(place)) == str(tmp_path)
    assert os.path.basename(place) == "r.json"
    with pytest.raises(ValueError, match="No space left on device; it stands above$"):
        write_or_rescue("--output", "/full/r.json", full, "it stands above")


def test_a_full_disk_at_the_end(small, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(rescue.tempfile, "tempdir", str(tmp_path))
    path = tmp_path / "f.json"
    places = []

    def write(place, content, **options):
        places.append(place)
        if place == str(path):
            full(place)

    monkeypatch.setattr("trime_fairseq.evaluation.shards.write_json", write)
    with pytest.raises(ValueError, match=f"--eval-file {path}: No space left on device; the result was "):
        evaluate_here("word-trime", f"--use-local --eval-file {path}", small)
    assert len(places) == 2
    assert any("TRIME: all" in message and "Loss (base 2):" in message for message in caplog.messages)


def test_names_of_shards():
    assert Shard(3, 1).file("f.json") == "f.json.shard-1-of-3"
