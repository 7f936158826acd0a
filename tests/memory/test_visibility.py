"""Visibility patterns against their definition, and the tiles against brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trime_fairseq.memory import Visibility
from trime_fairseq.memory.tiling import cut_into_blocks


def seen(visibility, num_keys):
    return (~visibility.dense(num_keys, torch.device("cpu"))).nonzero().tolist()


def test_own_segment_sees_earlier_tokens_of_the_same_segment():
    assert seen(Visibility.own_segment(2, 3), 6) == [[1, 0], [2, 0], [2, 1], [4, 3], [5, 3], [5, 4]]


@pytest.mark.parametrize("spans", [((1, 3), (1, 3)), ((0, 2), (2, 4)), ((3, 4), (0, 1), (1, 2))])
def test_row_prefixes(spans):
    queries = [(row, t) for row, (first, last) in enumerate(spans) for t in range(first, last)]
    expected = [[i, row * 4 + j] for i, (row, t) in enumerate(queries) for j in range(t)]
    assert seen(Visibility.row_prefixes(4, spans), 4 * len(spans)) == expected


def test_shared_interval_per_group():
    assert seen(Visibility.shared(((0, 2, 2), (1, 3, 1))), 3) == [
        [0, 0],
        [0, 1],
        [1, 0],
        [1, 1],
        [2, 1],
        [2, 2],
    ]


ROWS = st.tuples(
    st.integers(1, 5).flatmap(
        lambda width: st.tuples(st.just(width), st.lists(st.integers(0, width), min_size=1, max_size=4))
    ),
    st.integers(0, 4),
    st.integers(0, 4),
)


def tokens_of(width, lengths):
    """(query, row, key) of each token of a padded batch, keys counted without padding."""
    tokens = [(row, t) for row, length in enumerate(lengths) for t in range(length)]
    return [(row * width + t, row, key) for key, (row, t) in enumerate(tokens)]


@given(batch=ROWS)
@settings(max_examples=60, deadline=None)
def test_consecutive_sees_all_earlier_tokens_of_the_group(batch):
    (width, lengths), before, after = batch
    found = seen(Visibility.consecutive(width, tuple(lengths), before), before + sum(lengths) + after)
    assert found == [[query, j] for query, _, key in tokens_of(width, lengths) for j in range(before + key)]


@given(batch=ROWS, hide_own=st.booleans())
@settings(max_examples=60, deadline=None)
def test_all_segments_but_the_future_of_ones_own(batch, hide_own):
    (width, lengths), before, after = batch
    total = before + sum(lengths) + after
    visibility = Visibility.all_segments(width, tuple(lengths), before, total, hide_own)
    tokens = tokens_of(width, lengths)
    row_of = {before + key: row for _, row, key in tokens}

    def sees(row, key, j):
        return row_of.get(j) != row or (j < before + key and not hide_own)

    assert seen(visibility, total) == [
        [query, j] for query, row, key in tokens for j in range(total) if sees(row, key, j)
    ]


def test_bad_rows():
    row = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="go together"):
        Visibility(row, row, skip_begin=row)
    with pytest.raises(ValueError, match="differ in length"):
        Visibility(row, row[:1])
    with pytest.raises(ValueError, match="int64"):
        Visibility(row.float(), row)


intervals = st.lists(
    st.tuples(st.integers(-3, 20), st.integers(-3, 24), st.integers(0, 20), st.integers(0, 20)),
    min_size=1,
    max_size=30,
)


@given(
    rows=intervals, num_keys=st.integers(1, 20), query_block=st.integers(1, 9), key_block=st.integers(1, 9)
)
@settings(max_examples=200, deadline=None)
def test_tiles_cover_what_is_seen_and_mask_what_is_not(rows, num_keys, query_block, key_block):
    """Every visible pair lies in exactly one tile; an unmasked tile has visible pairs only; blocks partition
    the queries and keep to their sizes."""
    visibility = Visibility(*(torch.tensor(row) for row in zip(*rows)))
    visible = ~visibility.dense(num_keys, torch.device("cpu"))
    covered = torch.zeros_like(visible, dtype=torch.int64)
    table = torch.tensor(rows).t().numpy()
    blocks = cut_into_blocks(table, num_keys, query_block, key_block)
    assert [block.begin for block in blocks] == [0, *[block.end for block in blocks[:-1]]]
    assert blocks[-1].end == len(rows)
    for block in blocks:
        assert 0 < block.end - block.begin <= query_block
        for begin, end, masked in block.tiles:
            assert 0 <= begin < end <= num_keys
            assert end - begin <= key_block
            covered[block.begin : block.end, begin:end] += 1
            assert masked or visible[block.begin : block.end, begin:end].all()
    assert covered[visible].eq(1).all()
    assert covered.max() <= 1


def test_tiles_that_nobody_sees_are_skipped():
    """Causal visibility of one segment costs about half of the plane; what all skip costs nothing."""
    causal = Visibility.own_segment(1, 1024)
    tiles = [(tile.row[1], tile.column[1]) for tile in causal.tiles(1024, (64, 64))]
    area = sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in tiles)
    assert area / 1024**2 == pytest.approx(0.53, abs=0.01)
    n = torch.zeros(10, dtype=torch.int64)
    hole = Visibility(n, n + 1000, n + 100, n + 900)
    tiles = [(tile.column[1], tile.masked) for tile in hole.tiles(1000, (16, 2000))]
    assert tiles == [(slice(0, 100), False), (slice(900, 1000), False)]


def test_short_parts_share_tiles():
    """Ten segments of 8 tokens in tiles of 16 x 16: four segments each."""
    tiles = Visibility.own_segment(10, 8).tiles(8, (16, 16))
    assert [(tile.row[0].start, tile.row[0].stop) for tile in tiles] == [(0, 4), (4, 8), (8, 10)]
