"""Flags of the order of batches."""

import logging

import pytest
from fairseq.data import ListDataset

from tests.recorded import make_criterion, make_order
from trime_fairseq.criterions.trime_ext_loss import TrimeExtConfig, TrimeExtLoss
from trime_fairseq.criterions.trime_long_loss import TrimeLongLoss, TrimeLongLossSameDevice
from trime_fairseq.data.order import PlannedIterator


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(train_mem_size=40), "is not a multiple of the 16 tokens of a device"),
        (dict(train_mem_size=8), "is not a multiple of the 16 tokens of a device"),
        (dict(train_mem_size=-16), "is not a multiple"),
        (dict(train_mem_size=40, max_tokens=20, world_size=2), "not a multiple of --tokens-per-sample 8"),
        (dict(train_mem_size=48, world_size=4), "groups of 3 devices .* do not divide 4 devices"),
        (dict(train_mem_size=32, world_size=1), "groups of 2 devices .* do not divide 1 devices"),
        (dict(train_mem_size=16, keep_order=False), "pass --keep-order"),
        (dict(train_mem_size=16, predefined_batches="b.json"), "without --predefined-batches"),
        (dict(predefined_batches=""), "--predefined-batches is empty"),
        (dict(shuffle_steps=True, keep_order=False), "--shuffle-steps moves the steps of --keep-order: pass"),
        (dict(shuffle_steps=True, predefined_batches="b.json"), "without --predefined-batches"),
        (
            dict(shuffle_steps=True, keep_order=False, predefined_batches="b.json"),
            "whose steps move unless --keep-order is given",
        ),
        (dict(max_tokens=7), "--max-tokens 7 holds no segment of --tokens-per-sample 8"),
    ],
)
def test_contradicting_flags(settings, message):
    with pytest.raises(ValueError, match=message):
        make_order(**settings).check("data", "train")


def test_predefined_batches_of_several_folders():
    with pytest.raises(ValueError, match="one DATA folder"):
        make_order(predefined_batches="b.json").check("data1:data2", "train")


@pytest.mark.parametrize(
    ("settings", "tokens", "devices"),
    [
        (dict(train_mem_size=64, world_size=8), 16, 4),
        (dict(train_mem_size=64, world_size=8, max_tokens=None, batch_size=4), 32, 2),
        (dict(train_mem_size=64, world_size=8, max_tokens=64, batch_size=1), 8, 8),
        (dict(world_size=8), 16, 1),
        (dict(world_size=8, predefined_batches="b.json"), 16, 8),
        (dict(max_tokens=6, sample_break_mode="eos"), 6, 1),
    ],
)
def test_devices_that_share_a_memory(settings, tokens, devices):
    order = make_order(**settings)
    order.check("data", "train")
    assert order.tokens_per_device == tokens
    assert order.devices_per_memory == devices


def resumed(list_hash, state):
    """An iterator of that list that has loaded the state of another; over three batches."""
    batches = [[number] for number in range(3)]
    iterator = PlannedIterator(ListDataset(batches), None, batches, list_hash=list_hash)
    iterator.load_state_dict(state)
    iterator.next_epoch_itr()
    return iterator


def test_training_goes_on_with_its_list():
    first = resumed("one", {"epoch": 2, "iterations_in_epoch": 0, "shuffle": True})  # of an earlier version
    state = first.state_dict()
    assert resumed("one", state).state_dict() == state
    with pytest.raises(ValueError, match="^--predefined-batches is another list .*--reset-dataloader"):
        resumed("two", state)
    with pytest.raises(ValueError, match="^--predefined-batches is missing: .*--reset-dataloader"):
        resumed(None, state)
    plain = resumed(None, {"epoch": 2}).state_dict()
    assert not [name for name in plain if "trime" in name]  # as fairseq writes it
    assert resumed("one", plain).epoch == 2


@pytest.mark.parametrize("kind", [TrimeLongLoss, TrimeLongLossSameDevice])
@pytest.mark.parametrize("settings", [dict(keep_order=False), dict(predefined_batches="b.json")])
def test_consecutive_memory_needs_consecutive_segments(kind, settings):
    with pytest.raises(ValueError, match="--keep-order"):
        make_criterion(kind, order=make_order(**settings))


def test_size_of_the_consecutive_memory():
    with pytest.raises(ValueError, match=r"needs --train-mem-size N.*\(32 for all\)"):
        make_criterion(TrimeLongLoss, order=make_order(world_size=2))
    order = make_order(world_size=2, train_mem_size=32)
    assert make_criterion(TrimeLongLoss, order=order).devices_per_memory == 2
    with pytest.raises(ValueError, match="memory of one device"):
        make_criterion(TrimeLongLossSameDevice, order=order)
    with pytest.raises(ValueError, match="batches of all devices"):
        make_criterion(TrimeExtLoss, order=order)


@pytest.mark.parametrize("ratio", [-0.1, 1.5, float("nan")])
def test_cross_sent_ratio_is_a_probability(ratio):
    with pytest.raises(ValueError, match=r"--cross-sent-ratio is a probability, in \[0, 1\]"):
        make_criterion(TrimeExtLoss, cross_sent_ratio=ratio)


@pytest.mark.parametrize(
    ("settings", "moves"),
    [
        (dict(), False),
        (dict(shuffle_steps=True), True),
        (dict(keep_order=False), True),
        (dict(keep_order=False, predefined_batches="b.json"), True),
        (dict(predefined_batches="b.json"), False),
    ],
)
def test_steps_that_move_to_another_place_in_every_epoch(settings, moves):
    assert make_order(**settings).moves_steps is moves


def warnings_of_ext(caplog, order=None, **settings):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        make_criterion(TrimeExtLoss, order=order or make_order(predefined_batches="b.json"), **settings)
    return "\n".join(record.message for record in caplog.records)


COMPLETE = dict(ce_warmup_epoch=1, cross_sent_ratio=0.5)


def test_warns_of_batches_that_are_not_similar(caplog):
    assert warnings_of_ext(caplog, **COMPLETE) == ""
    assert "without --predefined-batches" in warnings_of_ext(caplog, make_order(), **COMPLETE)


@pytest.mark.parametrize(
    ("settings", "without"),
    [
        (dict(ce_warmup_epoch=1), "without --cross-sent-ratio:"),
        (dict(cross_sent_ratio=0.5), "without a warm-up (--ce-warmup-epoch):"),
        (dict(), "without a warm-up (--ce-warmup-epoch) and without --cross-sent-ratio:"),
        (dict(finetune_from_model="plain.pt"), "trime_ext_loss without --cross-sent-ratio:"),
        (dict(COMPLETE), None),
        (dict(ce_warmup_updates=1, cross_sent_ratio=0.5), None),
        (dict(finetune_from_model="plain.pt", cross_sent_ratio=0.5), None),
        (dict(restore_file="plain.pt", cross_sent_ratio=0.5), None),
    ],
)
def test_warns_of_a_training_that_only_learns_to_copy(caplog, settings, without):
    found = warnings_of_ext(caplog, **settings)
    assert without in found and "learn to copy" in found if without else not found


def test_task_that_does_not_know_the_batches():
    criterion = make_criterion(TrimeExtLoss)
    criterion.task.order = None
    with pytest.raises(ValueError, match="use --task trime_language_modeling"):
        TrimeExtLoss.__init__(criterion, TrimeExtConfig(**GIVEN), criterion.task)


GIVEN = dict(sentence_avg=False, ddp_backend="legacy_ddp", distributed_world_size=1, seed=1)


def test_memory_of_a_single_segment(caplog):
    """The memory would be empty, or that of trime_loss."""
    alone = make_order(max_tokens=15, predefined_batches="b.json")
    with pytest.raises(ValueError, match="other segments, but --max-tokens 15 of one device holds only one"):
        make_criterion(TrimeExtLoss, order=alone)
    make_criterion(TrimeExtLoss, order=make_order(max_tokens=15, world_size=2))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        make_criterion(TrimeLongLossSameDevice)
        assert not caplog.records
        make_criterion(TrimeLongLossSameDevice, order=make_order(max_tokens=15))
    assert "holds a single segment" in caplog.text


def test_draws_repeat_with_seed_update_and_batch():
    def draws(seed, updates):
        criterion = make_criterion(TrimeExtLoss, seed=seed)
        found = []
        for update in updates:
            criterion.task.update_num = update
            found.append([criterion._draw(2 * update), criterion._draw(2 * update + 1)])
        return found

    whole = draws(1, [0, 1, 2, 3])
    assert draws(1, [2, 3]) == whole[2:]
    assert len({value for pair in whole for value in pair}) == 8
    assert draws(2, [0]) != whole[:1]
    many = [criterion_draw for pair in draws(5, range(1000)) for criterion_draw in pair]
    assert sum(value < 0.9 for value in many) / 2000 == pytest.approx(0.9, abs=0.03)
