"""Batches of sentence pairs: those of the published code, of all sentences, on both releases of fairseq."""

import random

import numpy as np
import pytest
import torch

from tests.small_pairs import make_pairs
from trime_fairseq.data.sentence_batches import SentenceBatches, fill_last_group, whole_batches


def greedy(lengths, order, max_tokens, max_sentences, multiple):
    """As the published code cuts them: by a loop over sentences."""
    batches, batch = [], []
    for number in order:
        longest = max(lengths[one] for one in [*batch, number])
        too_long = max_tokens and (len(batch) + 1) * longest > max_tokens
        if batch and (too_long or len(batch) == max_sentences):
            cut = len(batch) // multiple * multiple or len(batch)
            batches.append(batch[:cut])
            batch = batch[cut:]
        batch.append(number)
    return [*batches, batch]


def random_case(seed):
    draw = random.Random(seed)
    count = draw.randint(1, 120)
    sides = [[draw.randint(2, 60) for _ in range(count)] for _ in range(2)]
    order = draw.sample(range(count), count)
    max_tokens = draw.choice([None, 64, 128, 256, 512, 2048])
    max_sentences = draw.choice([None, 3, 8, 16, 20] if max_tokens else [3, 8, 16, 20])
    return sides, np.array(order), max_tokens, max_sentences, draw.choice([1, 4, 8, 8])


@pytest.mark.parametrize("seed", range(200))
def test_slices_of_an_order(seed):
    sides, order, *bounds = random_case(seed)
    batches = whole_batches(make_pairs(*sides), order, *bounds, always_join=True)
    lengths = np.maximum(*sides)
    assert [batch.tolist() for batch in batches] == greedy(lengths, order.tolist(), *bounds)


@pytest.mark.parametrize("seed", range(200, 260))
def test_fairseqs_batches_are_kept(seed):
    """All of them but the last; what it leaves out comes after them."""
    sides, _, max_tokens, max_sentences, multiple = random_case(seed)
    pairs = make_pairs(*sides)
    order = pairs.ordered_indices()
    stock = [batch.tolist() for batch in pairs.batch_by_size(order, max_tokens, max_sentences, multiple)]
    ours = SentenceBatches(pairs).batch_by_size(order, max_tokens, max_sentences, multiple)
    ours = [batch.tolist() for batch in ours]
    assert sum(ours, []) == order.tolist()
    assert ours[: len(stock) - 1] == stock[:-1]
    if sum(stock, []) == order.tolist():
        assert ours == stock
    for batch in ours:
        longest = max(max(side[number] for number in batch) for side in sides)
        assert not max_tokens or len(batch) * longest <= max_tokens
        assert not max_sentences or len(batch) <= max_sentences


def test_no_sentences():
    assert (
        SentenceBatches(make_pairs([3], [3])).batch_by_size(np.array([], dtype=np.int64), 64, None, 8) == []
    )


def test_a_sentence_that_is_no_batch():
    with pytest.raises(
        ValueError, match="^`max_tokens` 64 is less than the 65 tokens of sentence 1: raise it"
    ):
        SentenceBatches(make_pairs([3, 5, 9], [3, 65, 64])).batch_by_size(np.arange(3), 64, None, 8)


def test_the_last_group_is_filled():
    assert fill_last_group(["a", "b", "c"], 2) == ["a", "b", "c", []]
    assert fill_last_group(["a", "b"], 2) == ["a", "b"]
    assert fill_last_group(["a"], 1) == ["a"]
    batches = SentenceBatches(make_pairs([4] * 20, [5] * 20), group_size=4).batch_by_size(
        np.arange(20), None, 8, 8
    )
    assert [len(batch) for batch in batches] == [8, 8, 4, 0]


def test_a_rank_without_sentences():
    pairs = make_pairs([4, 3], [5, 2])
    assert SentenceBatches(pairs).collater([]) == {}
    batches = SentenceBatches(pairs, for_memory=True)
    idle = batches.collater([])
    pad, eos = pairs.tgt_dict.pad(), pairs.tgt_dict.eos()
    assert idle["ntokens"] == idle["nsentences"] == 0
    assert idle["target"].tolist() == idle["host_target"].tolist() == [[pad]]
    assert (
        idle["net_input"]["src_tokens"].tolist()
        == idle["net_input"]["prev_output_tokens"].tolist()
        == [[eos]]
    )
    usual, stock = (maker.collater([pairs[0], pairs[1]]) for maker in (batches, pairs))
    assert usual.pop("host_target").tolist() == stock["target"].tolist()
    torch.testing.assert_close(usual, stock)
