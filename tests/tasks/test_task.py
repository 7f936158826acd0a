"""Batches of an evaluation, as the task makes them."""

import numpy as np
import pytest
from fairseq.sequence_scorer import SequenceScorer
from omegaconf import OmegaConf

from tests.commands import REFERENCE
from tests.recorded import make_criterion, make_order
from tests.small_tasks import make_task
from trime_fairseq.criterions import TrimeCriterionConfig
from trime_fairseq.evaluation import MemoryScorer
from trime_fairseq.models.checkpoints import dictionary_state


@pytest.fixture(scope="module")
def task():
    data = REFERENCE / "data" / "word"
    task = make_task(data, tokens_per_sample=32, context_window=96, gen_subset="valid")
    task.load_dataset("valid")
    return task


def rows(task, **flags):
    """Sample ids of each batch."""
    batches = task.eval_lm_dataloader(task.dataset("valid"), context_window=96, max_positions=128, **flags)
    return [batch["sample_ids"] for batch in batches]


def test_max_tokens_bounds_the_model_input_unless_a_batch_size_is_given(task):
    """32 new tokens with 96 of context: 1,024 tokens are 8 rows of 128; with a batch size, 32 rows."""
    batches = rows(task, max_tokens=1024)
    assert [len(batch) for batch in batches[:3]] == [8, 8, 8]
    assert [sample for batch in batches for sample in batch] == list(range(650))
    assert len(rows(task, max_tokens=1024, batch_size=100)[0]) == 32
    assert len(rows(task, max_tokens=1024, batch_size=5)[0]) == 5
    # A limit below the input of a single sample still scores one at a time.
    assert len(rows(task, max_tokens=10)) == 650


def test_nothing_to_evaluate(task):
    """fairseq would print a perplexity of 1."""
    with pytest.raises(ValueError, match="all 650 samples of --gen-subset valid are longer than the 10"):
        task.args.tokens_per_sample, before = 10, task.args.tokens_per_sample
        try:
            task.eval_lm_dataloader(task.dataset("valid"), max_positions=10)
        finally:
            task.args.tokens_per_sample = before


def test_asking_for_batches_leaves_fairseq_as_it_is(task):
    """The scorer of an evaluation is armed while its batches come, and no longer."""
    stock = SequenceScorer.generate
    batches = task.eval_lm_dataloader(task.dataset("valid"), context_window=96, max_positions=128)
    assert SequenceScorer.generate is stock
    coming = iter(batches)
    next(coming)
    assert SequenceScorer.generate is not stock
    coming.close()
    assert SequenceScorer.generate is stock


def test_batches_of_an_evaluation_are_scored_by_its_scorer_and_others_by_fairseqs(task, monkeypatch):
    """While an evaluation runs, too: benchmarks and tests score batches of their own beside it."""
    calls = []
    monkeypatch.setattr(MemoryScorer, "generate", lambda self, *arguments: calls.append((self, *arguments)))
    monkeypatch.setattr(SequenceScorer, "generate", lambda *arguments: calls.append(arguments))
    scorer = SequenceScorer(task.target_dictionary, softmax_batch=7)
    batches = task.eval_lm_dataloader(task.dataset("valid"), context_window=96, max_positions=128)
    for batch in batches:
        scorer.generate([], batch)
        scorer.generate([], {"net_input": None})
        break
    assert calls == [(batches.scorer, [], batch, 7), (scorer, [], {"net_input": None})]


def test_one_process_validates_what_several_trained(task, monkeypatch, caplog):
    """fairseq-validate: the memory is that of one device then, and a warning says so."""
    monkeypatch.setattr(task, "_devices_per_memory", 4)
    for shards, devices in [(4, 4), (6, 2), (1, 1)]:
        caplog.clear()
        with caplog.at_level("WARNING"):
            iterator = task.get_batch_iterator(
                task.dataset("valid"), max_tokens=128, num_shards=shards, disable_iterator_cache=True
            )
        assert iterator.dataset.group_size == devices
        assert ("raise --max-tokens" in caplog.text) == (devices < 4)


@pytest.mark.parametrize("devices_per_memory", [None, 1])
def test_targets_are_on_the_host_whatever_the_order(task, monkeypatch, devices_per_memory):
    monkeypatch.setattr(task, "_devices_per_memory", devices_per_memory)
    iterator = task.get_batch_iterator(
        task.dataset("valid"), max_tokens=512, max_positions=128, num_workers=1
    )
    batches = list(iterator.next_epoch_itr(shuffle=False))
    assert batches
    for batch in batches:
        assert isinstance(batch["host_target"], np.ndarray)
        assert batch["host_target"].tolist() == batch["target"].tolist()


def test_iterators_are_kept_as_fairseq_keeps_them(task, monkeypatch):
    monkeypatch.setattr(task, "_devices_per_memory", 1)
    valid = task.dataset("valid")
    one = task.get_batch_iterator(valid, max_tokens=128)
    assert task.get_batch_iterator(valid, max_tokens=128) is one
    for flag in ("disable_iterator_cache", "update_epoch_batch_itr"):
        assert task.get_batch_iterator(valid, max_tokens=128, **{flag: True}) is not one
    assert task.get_batch_iterator(valid, max_tokens=128) is one


def test_device_without_room_in_a_step_of_several(task, monkeypatch):
    """fairseq goes on to the next batch after "out of memory", and the other devices would wait forever."""
    from fairseq.tasks.language_modeling import LanguageModelingTask

    def full(*unused):
        raise RuntimeError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(LanguageModelingTask, "train_step", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        task.train_step({}, None, None, None, 3)
    assert task.update_num == 3
    monkeypatch.setattr(task, "_devices_per_memory", 2)
    with pytest.raises(RuntimeError, match="lower --max-tokens") as error:
        task.train_step({}, None, None, None, 3)
    assert "out of memory" not in str(error.value)


@pytest.mark.parametrize(("setting", "saved"), [("1", None), ("1.5", 1.5), ("learnt", 1.25)])
def test_temperature_of_training_is_state_of_the_task(task, monkeypatch, setting, saved):
    """What an evaluation takes by default."""
    criterion = make_criterion("trime_loss", train_softmax_temp=setting)
    criterion.temperature.continue_from(1.25)
    monkeypatch.setattr(task, "_criterion", criterion)
    state = task.state_dict()
    assert state.pop("trime_dictionary")["types"] == 6248
    assert state == ({} if saved is None else {"trime_softmax_temp": pytest.approx(saved)})
    monkeypatch.setattr(task, "trained_softmax_temp", 7.0)
    task.load_state_dict(state)
    assert task.trained_softmax_temp == (saved and pytest.approx(saved))


def test_learnt_temperature_of_a_checkpoint_that_is_validated(task, monkeypatch):
    """fairseq-validate reads the state of the task, but not that of the criterion."""
    monkeypatch.setattr(task, "order", make_order())
    settings = dict(sentence_avg=False, ddp_backend="legacy_ddp", distributed_world_size=1)
    config = OmegaConf.create(
        {**vars(TrimeCriterionConfig(train_softmax_temp="learnt", **settings)), "_name": "trime_loss"}
    )
    for name in ("trained_softmax_temp", "_criterion", "summary"):
        monkeypatch.setattr(task, name, getattr(task, name))
    for trained, expected in [(None, 1.0), (1.5, 1.5)]:
        task.trained_softmax_temp = trained
        assert task.build_criterion(config).temperature.value == pytest.approx(expected)


@pytest.mark.parametrize("value", ["1.5", 0.0, -1.0, float("nan"), float("inf"), 1e-40, 1e30, [1.5], True])
def test_temperature_of_a_damaged_checkpoint(task, value):
    with pytest.raises(ValueError, match="the checkpoint is damaged: the temperature of its training"):
        task.load_state_dict({"trime_softmax_temp": value})


@pytest.mark.parametrize("shuffle_steps", [False, True])
def test_only_training_steps_are_shuffled(task, monkeypatch, shuffle_steps):
    """--keep-order --shuffle-steps; validation keeps text order."""
    monkeypatch.setattr(task, "_devices_per_memory", 1)
    monkeypatch.setattr(task, "order", make_order(shuffle_steps=shuffle_steps))
    orders = {}
    for subset in ("valid", "train"):
        monkeypatch.setattr(task.args, "train_subset", "valid" if subset == "train" else "train")
        iterator = task.get_batch_iterator(
            task.dataset("valid"), max_tokens=128, seed=1, disable_iterator_cache=True
        )
        batches = [batch["id"].tolist() for batch in iterator.next_epoch_itr()]
        orders[subset] = batches
        assert sorted(batches) == [list(range(first, min(first + 4, 650))) for first in range(0, 650, 4)]
    assert orders["valid"] == sorted(orders["valid"])
    assert (orders["train"] != orders["valid"]) == shuffle_steps


def test_dictionary_of_the_training_is_state_of_the_task(task):
    """By content: the same words in another order are another dictionary of the same size."""
    state = task.state_dict()
    task.load_state_dict(state)
    task.load_state_dict({})  # of a published checkpoint, or of an earlier version
    symbols = [*task.dictionary.symbols[:-2], *task.dictionary.symbols[:-3:-1]]
    for other, message in (
        (dictionary_state(symbols), "another dictionary of 6,248 types than DATA/dict.txt"),
        (dictionary_state(symbols[:-1]), "a dictionary of 6,247 types, DATA/dict.txt has 6,248"),
        ({}, "a dictionary of unknown types"),
        ("abc", "is damaged: what it says of its dictionary"),
    ):
        with pytest.raises(ValueError, match=message):
            task.load_state_dict({**state, "trime_dictionary": other})
