"""The order of training sentences that a file gives: who gets which batch, what is refused, and resuming."""

import json

import numpy as np
import pytest

from tests.small_pairs import make_pairs
from trime_fairseq.bm25 import BatchesInfo
from trime_fairseq.data.pair_files import PairFiles
from trime_fairseq.data.sentence_batches import SentenceBatches
from trime_fairseq.data.sentence_order import SentenceOrder, sentence_iterator

COUNT = 47


@pytest.fixture
def order(tmp_path):
    path = tmp_path / "batches.json"
    path.write_text(json.dumps(np.random.default_rng(2).permutation(COUNT).tolist()))
    return SentenceOrder(str(path))


@pytest.fixture(scope="module")
def pairs():
    lengths = np.random.default_rng(3).integers(2, 9, (2, COUNT))
    return make_pairs(*lengths.tolist())


def keep_all(indices, dataset, max_positions, ignore_invalid_inputs):
    return dataset.filter_indices_by_size(indices, max_positions)[0]


def make(pairs, order, **options):
    values = dict(max_tokens=24, required_batch_size_multiple=2, seed=5, **options)
    return sentence_iterator(SentenceBatches(pairs), order, keep_all, **values)


def steps(iterator, epoch, offset=0):
    """The ids of each batch of an epoch, those of a rank."""
    if offset:
        iterator.load_state_dict(dict(epoch=epoch, iterations_in_epoch=offset, shuffle=True, version=2))
    else:
        iterator.epoch = epoch
    return [batch["id"].tolist() if batch else [] for batch in iterator.next_epoch_itr(shuffle=True)]


def published_steps(batches, ranks, seed, epoch):
    """By step, the batches of the ranks: groups shuffled as units."""
    groups = [batches[first : first + ranks] for first in range(0, len(batches), ranks)]
    groups[-1] = groups[-1] + [[]] * (ranks - len(groups[-1]))
    np.random.RandomState(seed + epoch).shuffle(groups)
    return groups


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("epoch", [1, 3])
def test_groups_move_as_units(pairs, order, ranks, epoch):
    in_order = [sorted(batch) for batch in plain_batches(pairs, order)]
    assert len(in_order) % 4
    expected = published_steps(in_order, ranks, 5, epoch)
    found = [steps(make(pairs, order, num_shards=ranks, shard_id=rank), epoch) for rank in range(ranks)]
    found = [[sorted(batch) for batch in step] for step in zip(*found, strict=True)]
    assert found == expected
    assert sorted(number for step in found for batch in step for number in batch) == list(range(COUNT))


def plain_batches(pairs, order):
    iterator = make(pairs, order)
    return [batch["id"].tolist() for batch in iterator.next_epoch_itr(shuffle=False)]


def test_batches_are_slices(pairs, order):
    batches = plain_batches(pairs, order)
    given = order.sentences(COUNT).tolist()
    begin = 0
    for batch in batches:
        assert sorted(batch) == sorted(given[begin : begin + len(batch)])
        begin += len(batch)
    assert begin == COUNT


def test_epochs_differ(pairs, order):
    iterator = make(pairs, order)
    first, second = steps(iterator, 1), steps(iterator, 2)
    assert first != second
    assert sorted(map(tuple, first)) == sorted(map(tuple, second))


@pytest.mark.parametrize("rank", [0, 1])
def test_continues_within_an_epoch(pairs, order, rank):
    whole = steps(make(pairs, order, num_shards=2, shard_id=rank), 2)
    again = make(pairs, order, num_shards=2, shard_id=rank)
    assert steps(again, 2, offset=3) == whole[3:]
    # What fairseq saves after some steps.
    saving = make(pairs, order, num_shards=2, shard_id=rank)
    coming = saving.next_epoch_itr(shuffle=True)
    done = [next(coming)["id"].tolist() for _ in range(2)]
    state = json.loads(json.dumps(saving.state_dict()))
    resumed = make(pairs, order, num_shards=2, shard_id=rank)
    resumed.load_state_dict(state)
    rest = [batch["id"].tolist() if batch else [] for batch in resumed.next_epoch_itr(shuffle=True)]
    assert done + rest == steps(make(pairs, order, num_shards=2, shard_id=rank), 1)


def test_does_not_continue_with_another_list(pairs, order, tmp_path):
    iterator = make(pairs, order)
    iterator.next_epoch_itr(shuffle=True)
    state = iterator.state_dict()
    other = tmp_path / "other.json"
    other.write_text(json.dumps(list(range(COUNT))))
    with pytest.raises(ValueError, match="^--predefined-batches is another list than the one"):
        make(pairs, SentenceOrder(str(other))).load_state_dict(state)


def test_workers_change_nothing(pairs, order):
    assert steps(make(pairs, order, num_workers=2), 1) == steps(make(pairs, order), 1)


def test_sentences_that_are_too_long_are_left_out(pairs, order):
    sizes = np.maximum(pairs.src_sizes, pairs.tgt_sizes)
    found = steps(make(pairs, order, max_positions=(7, 7)), 1)
    assert sorted(sum(found, [])) == np.flatnonzero(sizes <= 7).tolist()
    with pytest.raises(ValueError, match=r"all 47 training sentences are longer than \(1, 1\): raise"):
        make(pairs, order, max_positions=(1, 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[0, 1, 2, 2]", "each sentence must be listed once, but 2 is listed 2 times and 3 not at all"),
        ("[0, 1, 2, 4]", r"4 is not the id of a sentence \(0 to 3\)"),
        ("[0, 1, 2]", "lists 3 sentences, but the training data has 4: make the file again"),
        ("[0, 1, 2, 3, 4]", "lists 5 sentences"),
        ("[[0, 1], [2, 3]]", "a JSON list of integers expected, the ids of the training sentences"),
        ("[0, 1, 2, 3", "cannot be read as JSON"),
        (None, "cannot be read"),
    ],
)
def test_bad_lists(tmp_path, content, message):
    path = tmp_path / "batches.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        SentenceOrder(str(path)).sentences(4)
    assert str(error.value).startswith(f"--predefined-batches {path}")


FACTS = dict(order_hash="", engine="bm25s", k=1, seed=1, neighbor_share=1.0, segments=4, text_hash="")


def test_lists_of_other_data(tmp_path, order):
    for name in ("train.es-en.en.idx", "train.es-en.en.bin"):
        (tmp_path / name).write_text(name)
    (tmp_path / "train.es-en.es.idx").write_text("")
    files = PairFiles(str(tmp_path), "train", "es", "en")
    order.check(str(tmp_path), files)  # lists of others have no description
    BatchesInfo(**FACTS, data_hash=files.target_hash()).write(order.path)
    order.check(str(tmp_path), files)
    (tmp_path / "train.es-en.en.bin").write_text("another")
    with pytest.raises(
        ValueError, match=r"was made from other target sentences than .*train\.es-en\.en: export"
    ):
        order.check(str(tmp_path), files)
    BatchesInfo(**FACTS, tokens_per_sample=128).write(order.path)
    with pytest.raises(ValueError, match=r"of the segments of a language model \(--tokens-per-sample 128\)"):
        order.check(str(tmp_path), files)


def test_flags_that_cannot_be(tmp_path, order):
    files = PairFiles(str(tmp_path), "train", "es", "en")
    with pytest.raises(ValueError, match="--predefined-batches is empty: an unset variable"):
        SentenceOrder("").check(str(tmp_path), files)
    with pytest.raises(ValueError, match="orders the segments of one DATA folder, not of several"):
        order.check(f"{tmp_path}:{tmp_path}", files)


def test_a_list_changed_by_hand(tmp_path, order):
    from trime_fairseq.bm25.batches import order_hash

    BatchesInfo(**{**FACTS, "segments": COUNT, "order_hash": order_hash(range(COUNT))}).write(order.path)
    with pytest.raises(ValueError, match="is not the list that the .info beside it describes"):
        order.sentences(COUNT)
