"""Which segment each rank sees at each step."""

import itertools

import numpy as np
import pytest
import torch
from fairseq import utils
from hypothesis import given
from hypothesis import strategies as st

from tests.small_data import monolingual
from trime_fairseq.data.order import planned_iterator
from trime_fairseq.data.planned import BatchLayout, deal_out


@pytest.fixture
def segments(dictionary):
    """11 segments of 4 tokens and a last one of 2."""
    return monolingual(dictionary, [46], 4, "none")


def iterators(dataset, ranks, group_size, order=None, **options):
    settings = {"shuffle": False, "max_tokens": 8, "seed": 1, **options}
    order = np.arange(len(dataset)) if order is None else np.array(order)
    return [
        planned_iterator(dataset, order, group_size, num_shards=ranks, shard_id=rank, **settings)
        for rank in range(ranks)
    ]


def epoch_of(iterator, steps=None):
    """Segment ids of each batch of the next epoch, or of its first steps; an empty batch is []."""
    batches = iterator.next_epoch_itr()
    return [
        batch["id"].tolist() if batch["nsentences"] else []
        for _, batch in zip(range(steps or len(batches)), batches)
    ]


def test_worked_example_of_the_documentation():
    batches = [[letter] for letter in "abcdefghi"]
    dealt = deal_out(batches, world_size=4, group_size=2)
    assert ["".join(batch) or "-" for batch in dealt] == "a b g h c d i - e f - -".split()
    with pytest.raises(ValueError, match="groups of 3 devices do not divide 4"):
        deal_out(batches, 4, 3)


# Twelve segments, two to a batch: what each rank (row) sees at each step (column).
TABLES = {
    (1, 1): ["01 23 45 67 89 AB"],
    (2, 1): ["01 23 45", "67 89 AB"],
    (2, 2): ["01 45 89", "23 67 AB"],
    (4, 1): ["01 23", "45 67", "89 --", "AB --"],
    (4, 2): ["01 45", "23 67", "89 --", "AB --"],
    (4, 4): ["01 89", "23 AB", "45 --", "67 --"],
}


def table_of(layout):
    return [[[int(c, 16) for c in batch if c != "-"] for batch in row.split()] for row in TABLES[layout]]


@pytest.mark.parametrize("layout", TABLES)
def test_text_order(segments, layout):
    assert [epoch_of(iterator) for iterator in iterators(segments, *layout)] == table_of(layout)


def test_workers_change_nothing(segments):
    iterator = iterators(segments, 4, 2, num_workers=2)[2]
    assert epoch_of(iterator) == table_of((4, 2))[2]


def test_order_is_never_shuffled(segments):
    (iterator,) = iterators(segments, 1, 1)
    assert epoch_of(iterator) == epoch_of(iterator) == epoch_of(iterator)


@given(
    batches=st.integers(1, 40),
    layout=st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2), (6, 3), (8, 1)]),
)
def test_every_batch_once_and_neighbours_together(batches, layout):
    world, group = layout
    dealt = deal_out([[number] for number in range(batches)], world, group)
    assert sorted(batch[0] for batch in dealt if batch) == list(range(batches))
    assert len(dealt) % world == 0
    for first in range(0, len(dealt), group):
        numbers = [batch[0] for batch in dealt[first : first + group] if batch]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    # A rank of a group goes through its part of the text in order.
    for rank in range(world):
        mine = [batch[0] for batch in dealt[rank::world] if batch]
        assert mine == sorted(mine)
    steps = [len([b for b in dealt[first : first + world] if b]) for first in range(0, len(dealt), world)]
    assert all(steps)


def test_predefined_batches_move_as_a_unit(segments):
    """Batches are slices of the list; a step's batches, of all ranks, stay together; the last incomplete
    step is kept."""
    order = [7, 3, 0, 1, 2, 4, 5, 6, 11, 10]
    ranks = iterators(segments, 2, 2, order, shuffle=True)
    first, second, third = (list(zip(*map(epoch_of, ranks))) for _ in range(3))
    expected = [([7, 3], [0, 1]), ([2, 4], [5, 6]), ([11, 10], [])]
    for epoch in (first, second, third):
        assert sorted(epoch) == sorted(expected)
    assert len({str(epoch) for epoch in (first, second, third)}) > 1
    again = iterators(segments, 2, 2, order, shuffle=True)
    assert list(zip(*map(epoch_of, again))) == first


def steps_of(ranks):
    """Segments of each step of the next epoch: those of all ranks, in the order of ranks."""
    return [tuple(itertools.chain(*step)) for step in zip(*map(epoch_of, ranks))]


def test_steps_in_random_order(segments):
    """--shuffle-steps: a memory is the same consecutive segments in every epoch, whose order changes; on one
    device, or on two that share it."""
    text = [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    one = iterators(segments, 1, 1, shuffle=True, max_tokens=16)
    epochs = [steps_of(one) for _ in range(6)]
    assert all(sorted(epoch) == text for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 2
    two = iterators(segments, 2, 2, shuffle=True)
    assert [steps_of(two) for _ in range(6)] == epochs
    other_seed = iterators(segments, 1, 1, shuffle=True, max_tokens=16, seed=2)
    assert [steps_of(other_seed) for _ in range(6)] != epochs


def test_groups_keep_their_steps_together(segments):
    """Two groups, each with a memory of its own at a step: the step moves as a whole."""
    in_order = [tuple(step) for step in zip(*map(epoch_of, iterators(segments, 2, 1)))]
    ranks = iterators(segments, 2, 1, shuffle=True)
    epochs = [[tuple(step) for step in zip(*map(epoch_of, ranks))] for _ in range(4)]
    assert all(sorted(epoch) == sorted(in_order) for epoch in epochs)
    assert any(epoch != in_order for epoch in epochs)


@pytest.mark.parametrize("shuffle", [False, True])
def test_resumes_in_mid_epoch(segments, shuffle):
    options = dict(shuffle=shuffle, seed=3)
    (whole,) = iterators(segments, 1, 1, **options)
    epochs = [epoch_of(whole) for _ in range(2)]
    (interrupted,) = iterators(segments, 1, 1, **options)
    epoch_of(interrupted)
    epoch_of(interrupted, steps=2)
    (resumed,) = iterators(segments, 1, 1, **options)
    resumed.load_state_dict(interrupted.state_dict())
    assert epoch_of(resumed) == epochs[1][2:]


def test_what_a_sample_holds(segments, dictionary):
    """Layout of the group at a step, ragged last batch, and the empty batch behind it."""
    ranks = iterators(segments, 4, 2, max_tokens=12)
    steps = list(zip(*(list(iterator.next_epoch_itr()) for iterator in ranks)))
    assert [[s["id"].tolist() for s in step] for step in steps] == [
        [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    ]
    last = steps[0][3]
    assert last["layout"] == BatchLayout(lengths=(4, 4, 2), counts=(12, 10), member=1, number=3)
    assert (last["layout"].before, last["layout"].total) == (12, 22)
    assert steps[0][0]["layout"] == BatchLayout(lengths=(4, 4, 4), counts=(12, 12), member=0, number=0)
    assert steps[0][0]["layout"].before == 0
    assert last["ntokens"] == 10

    *_, empty = (next(iter(iterator.next_epoch_itr())) for iterator in iterators(segments, 8, 2))
    assert empty["layout"] == BatchLayout(lengths=(0,), counts=(0, 0), member=1, number=7)
    assert empty["ntokens"] == empty["nsentences"] == 0
    assert empty["target"].tolist() == [[dictionary.pad()]]
    assert not empty["net_input"]["src_tokens"].eq(dictionary.pad()).any()


def test_layout_reaches_the_criterion_as_it_is(segments):
    """Through a loader's workers, and through the copy of a sample to the device."""
    plain, loaded = (
        [batch["layout"] for batch in iterators(segments, 1, 1, num_workers=workers)[0].next_epoch_itr()]
        for workers in (0, 2)
    )
    assert loaded == plain
    assert [layout.number for layout in loaded] == [0, 1, 2, 3, 4, 5]
    sample = {"layout": loaded[0], "target": torch.zeros(2)}
    assert utils.apply_to_sample(torch.Tensor.double, sample)["layout"] is loaded[0]
    assert utils.move_to_cuda({"layout": loaded[0]}, device="meta")["layout"] is loaded[0]


def test_rows_of_padding_hold_no_tokens(segments):
    """--pad-to-fixed-bsz"""
    segments.pad_to_bsz = 4
    sample = iterators(segments, 1, 1)[0].dataset[0]
    assert sample["target"].shape == (4, 4)
    assert sample["layout"].lengths == (4, 4, 0, 0)


def test_begin_of_sentence_symbols_are_counted(dictionary):
    segments = monolingual(dictionary, [5, 2, 9, 4], 6, "complete")
    segments.add_bos_token = True
    plan = iterators(segments, 1, 1, begins_with_bos=True, max_tokens=100)[0].dataset
    sample = plan[0]
    assert sample["layout"].counts == (sum(sample["layout"].lengths),)
    assert sample["layout"].lengths == tuple(int(size) + 1 for size in segments.sizes)


def test_rows_are_bounded_by_batch_size_too(segments):
    (iterator,) = iterators(segments, 1, 1, max_tokens=None, max_sentences=5)
    assert [len(batch) for batch in epoch_of(iterator)] == [5, 5, 2]
    assert torch.is_tensor(iterator.first_batch["id"])
    # One batch of everything, whose last row is shorter.
    (iterator,) = iterators(segments, 1, 1, max_tokens=None, max_sentences=12)
    assert [len(batch) for batch in epoch_of(iterator)] == [12]
