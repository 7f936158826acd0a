"""Losses that are no numbers, and probabilities of 0: never a result, never a wonderful perplexity."""

import json
import logging
import math
import re
from dataclasses import replace

import pytest
import torch

from tests.commands import REFERENCE, evaluate_here, needs_half_on_cpu
from tests.played import PlayedTask
from tests.recorded import RecordedModel
from tests.trusted import load_trusted
from trime_fairseq.datastore import Neighbors
from trime_fairseq.evaluation import MemoryConfig, MemoryScorer, run_eval_lm
from trime_fairseq.evaluation.memory_scores import MemoryScores, neighbor_scores
from trime_fairseq.evaluation.mixture import cache_scores, mix
from trime_fairseq.evaluation.numbers import NumberWatch
from trime_fairseq.memory import Visibility, memory_lse

CHECKPOINT = REFERENCE / "checkpoints" / "word-trime" / "checkpoint_best.pt"
LOCAL = "--context-window 96 --use-local --batch-size 8"
NAN = math.nan


def damaged(path, change):
    """A copy of the checkpoint with changed weights."""
    state = load_trusted(CHECKPOINT)
    for name, value in state["model"].items():
        change(name, value)
    torch.save(state, path)
    return str(path)


def evaluate(path, data, *flags):
    words = [str(data), "--path", path, "--cpu", "--gen-subset", "valid", "--tokens-per-sample", "128"]
    return run_eval_lm([*words, *LOCAL.split(), *map(str, flags)])


def test_weights_that_are_no_numbers(small, tmp_path):
    """One behind the key layer: the keys are fine. No datastore is completed."""

    def change(name, value):
        if "layers.2.fc2.bias" in name or "layers.1.fc2.bias" in name:
            value[0] = NAN

    path = damaged(tmp_path / "nan.pt", change)
    with pytest.raises(ValueError, match="NaN.*--path|--path.*NaN"):
        evaluate(path, small, "--eval-file", tmp_path / "f.json")
    assert not (tmp_path / "f.json").exists()
    with pytest.raises(ValueError, match="NaN.*--path|--path.*NaN"):
        evaluate(path, small, "--save-knnlm-dstore", "--dstore-mmap", tmp_path / "store")
    manifest = tmp_path / "store.json"
    assert not manifest.exists() or json.loads(manifest.read_text())["complete"] is False


@needs_half_on_cpu
def test_overflow_in_half_precision(small, tmp_path):
    def enlarge(name, value):
        if "fc1.bias" in name or "fc2.weight" in name:
            value.fill_(2000.0)

    path = damaged(tmp_path / "large.pt", enlarge)
    with pytest.raises(ValueError, match="the loss is NaN: .* in half precision: leave out --fp16"):
        evaluate(path, small, "--fp16")
    assert math.isfinite(evaluate(path, small).loss)


def test_the_batches_that_are_looked_at():
    watch = NumberWatch(MemoryConfig())
    on_gpu = [number for number in range(1, 20) if watch.looks(torch.device("cuda"))]
    assert on_gpu == [1, 2, 4, 8, 16]
    assert all(watch.looks(torch.device("cpu")) for _ in range(5))


def test_what_was_not_looked_at_is_found_at_the_end():
    watch = NumberWatch(MemoryConfig(use_local=True))
    watch.check_sums(math.inf, 5.0)
    for sums, message in [
        ((NAN, NAN), "the output of --path"),
        ((NAN, 5.0), "raise --softmax-temp$"),
        ((-math.inf, 5.0), "similarities to memories overflow"),
    ]:
        with pytest.raises(ValueError, match=message):
            watch.check_sums(*sums)
    with pytest.raises(ValueError, match="keys of --dstore-filename are no numbers"):
        NumberWatch(MemoryConfig(knnlm=True)).check_memories(torch.tensor([0.0, NAN]))


def test_a_memory_of_no_numbers_is_not_an_empty_one():
    """Else the model alone would be the result."""
    nan, some, plain = (torch.tensor([value]) for value in (NAN, 0.5, 1.0))
    cache = MemoryConfig(mode="li", use_local=True, cache_lmbda=0.5)
    for joint in (MemoryScores(nan, some), MemoryScores(nan, nan)):
        assert mix(cache, plain, some, joint, None).log_prob.isnan()
        assert cache_scores(joint).exists
    scores = torch.full((1, 2), NAN)
    found = neighbor_scores(Neighbors(scores, torch.tensor([[3, 4]]), None), torch.tensor([3]), [1.0], [2])
    knn = MemoryConfig(knnlm=True, lmbda=0.5)
    assert mix(knn, plain, some, None, type(found)(*(part[0, 0] for part in found))).log_prob.isnan()


@pytest.mark.parametrize("impl", ["chunked", "naive", "triton"])
@pytest.mark.parametrize("where", ["queries", "keys"])
def test_the_memory_does_not_hide_what_is_no_number(impl, where):
    """In training fairseq shall see it."""
    if impl == "triton":
        pytest.importorskip("triton")
    queries, keys = torch.randn(40, 8), torch.randn(40, 8)
    {"queries": queries, "keys": keys}[where][3] = NAN
    tokens = torch.zeros(40, dtype=torch.int64)
    visibility = Visibility.row_prefixes(40, ((0, 40),))
    found = memory_lse(queries, keys, tokens, tokens, visibility, 0.3, impl=impl)
    for lse in found:
        if where == "queries":
            assert lse[3].isnan()
        else:
            assert lse[4:].isnan().all()
            assert lse[1:4].isfinite().all()


class OnlyMemory(PlayedTask):
    """The model has no weight, whatever the flag says: most words have probability 0."""

    def build_scorer(self, config, pad, parts):
        return MemoryScorer(replace(config, cache_lmbda=1.0), pad, parts)


def test_words_of_probability_0(small, tmp_path, caplog, capfd):
    caplog.set_level(logging.INFO)
    file = tmp_path / "f.json"
    flags = f"{LOCAL} --mode li --cache-lmbda 0.9 --output-word-probs --output-word-stats --eval-file {file}"
    result = evaluate_here("word-trime", flags, small, OnlyMemory)
    count = result.zero_probability_tokens
    assert 1000 < count < result.tokens
    assert result.loss == result.ppl == math.inf
    assert math.isfinite(result.loss_without_memory)
    assert 0 <= result.mem_share <= 1

    def no_constant(name):
        raise AssertionError(f"{name} is no JSON")

    content = json.loads(file.read_text(), parse_constant=no_constant)
    assert (content["loss"], content["ppl"], content["nll_nats"]) == (None, None, None)
    assert content["zero_probability_tokens"] == count
    assert content["loss_without_memory"] == result.loss_without_memory
    # fairseq's own last line.
    assert re.search(r"Perplexity: inf$", caplog.messages[-1]), caplog.messages[-1]
    said = f"{count:,} of {result.tokens:,} tokens have probability 0, so the loss is infinite"
    assert any(said in message for message in caplog.messages)
    assert "Logging error" not in capfd.readouterr().err
    assert not any("skipping tokens" in message for message in caplog.messages)


def test_one_word_of_probability_0_is_enough():
    """Fairseq's sum of scores in float32, over a text, and over the pieces of a word."""
    model = RecordedModel(torch.zeros(1, 3, 4), torch.zeros(1, 3, 2), adaptive_softmax=None)
    model.features[0, 1, 2] = -math.inf
    sample = {
        "net_input": {"src_tokens": torch.tensor([[0, 1, 2]])},
        "target": torch.tensor([[1, 2, 3]]),
        "sample_ids": [0],
        "spans": [(0, 3)],
    }
    scorer = MemoryScorer(MemoryConfig(mode="lm"), 1)
    ((found,),) = scorer.generate([model], sample)
    scores = found["positional_scores"]
    assert scores.isfinite().all()
    assert scores[[0, 2]].tolist() == pytest.approx([-math.log(4), -math.log(3)][:1] * 2, rel=1e-6)
    # As fairseq computes its perplexity, of a text of a billion tokens.
    assert 2 ** (-scores.sum() / 1e9 / math.log(2)) == math.inf
    assert scores[1].repeat(30).sum().isfinite()
    scorer.refuse_nan()
    assert scorer.totals.finish().zero_probability_tokens == 1
