"""Text order and context windows."""

import numpy as np
import pytest
import torch
from fairseq.data import LMContextWindowDataset
from hypothesis import given
from hypothesis import strategies as st

from tests.small_data import monolingual
from trime_fairseq.data.context_window import ContextWindowDataset
from trime_fairseq.data.text_order import consecutive_batches, contiguous_shard, keep_short_enough


def windowed(dataset, tokens_per_sample, context_window, max_positions, pad):
    kept, _ = keep_short_enough(dataset.sizes, max_positions)
    return ContextWindowDataset(dataset, kept, dataset.sizes[kept], tokens_per_sample, context_window, pad)


@pytest.mark.parametrize("break_mode", ["none", "complete"])
@pytest.mark.parametrize("context_window", [3, 4, 9, 30])
@pytest.mark.parametrize("rows", [1, 3])
def test_inputs_of_stock_context_window(dictionary, break_mode, context_window, rows):
    """Visited in order by one worker, fairseq's own dataset gives the same tokens, targets and starts."""
    dataset = monolingual(dictionary, [5, 2, 9, 4, 1, 7, 30, 6, 3, 8], 6, break_mode)
    pad = dictionary.pad()
    ours = windowed(dataset, 6, context_window, 12, pad)
    stock = LMContextWindowDataset(dataset, 6, context_window, pad)
    for first in range(0, len(ours), rows):
        positions = range(first, min(first + rows, len(ours)))
        one = ours.collater([ours[p] for p in positions])
        two = stock.collater([stock[int(ours.kept[p])] for p in positions])
        width = one["target"].size(1)
        assert one["start_indices"] == two["start_indices"]
        assert one["ntokens"] == two["ntokens"]
        assert torch.equal(one["id"], two["id"])
        for mine, theirs in [
            (one["net_input"]["src_tokens"], two["net_input"]["src_tokens"]),
            (one["target"], two["target"]),
        ]:
            assert torch.equal(mine, theirs[:, :width])
            assert theirs[:, width:].eq(pad).all()


def test_an_item_depends_on_its_position_only(dictionary):
    """Stock keeps the preceding tokens as state; here any order of visits gives the same items."""
    dataset = monolingual(dictionary, [5, 2, 9, 4, 1, 7, 6, 3, 8], 5, "none")
    in_order = windowed(dataset, 5, 12, None, dictionary.pad())
    expected = [in_order[p] for p in range(len(in_order))]
    for order in ([8, 0, 3, 4, 4, 5, 1, 7, 2, 6], range(9, -1, -1), [1, 3, 5]):
        other = windowed(dataset, 5, 12, None, dictionary.pad())
        for position in [p for p in order if p < len(expected)]:
            item = other[position]
            assert torch.equal(item["source"], expected[position]["source"])
            assert item["start"] == expected[position]["start"]


def test_context_is_the_text_before_the_sample(dictionary):
    dataset = monolingual(dictionary, [40], 4, "none")
    item = windowed(dataset, 4, 6, None, dictionary.pad())[5]
    # Tokens 10, 11, ... with </s> (2) before them: sample 5 predicts tokens 30 to 33.
    assert item["target"].tolist() == [30, 31, 32, 33]
    assert item["source"].tolist() == [*range(23, 33)]
    assert item["start"] == 6


def test_long_samples_are_left_out():
    kept, left_out = keep_short_enough(np.array([3, 9, 5, 6]), 5)
    assert (kept.tolist(), left_out.tolist()) == ([0, 2], [1, 3])
    assert keep_short_enough(np.array([3, 9]), None)[0].tolist() == [0, 1]


def test_batches_of_consecutive_positions():
    assert consecutive_batches([5, 5, 5, 5, 5], 10) == [[0, 1], [2, 3], [4]]
    assert consecutive_batches([5, 5, 5], 100, max_rows=2) == [[0, 1], [2]]
    # The longest row counts for all: 2 and 9 together would be a batch of 18.
    assert consecutive_batches([2, 9, 2, 2], 10) == [[0], [1], [2, 3]]
    assert consecutive_batches([50, 1], 10) == [[0], [1]]
    assert consecutive_batches([], 10) == []


@given(st.integers(0, 30), st.integers(1, 9))
def test_shards_are_contiguous_and_even(count, num_shards):
    batches = [[i] for i in range(count)]
    shards = [contiguous_shard(batches, num_shards, i) for i in range(num_shards)]
    assert [batch for shard in shards for batch in shard] == batches
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_example_of_the_docstring():
    shards = [contiguous_shard([[i] for i in range(7)], 3, i) for i in range(3)]
    assert shards == [[[0], [1], [2]], [[3], [4]], [[5], [6]]]
