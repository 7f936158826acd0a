"""The order of segments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trime_fairseq.bm25 import greedy_chain


@st.composite
def neighbors(draw):
    count = draw(st.integers(1, 30))
    width = draw(st.integers(0, 5))
    ids = st.lists(st.integers(-1, count - 1), min_size=width, max_size=width)
    rows = draw(st.lists(ids, min_size=count, max_size=count))
    return np.array(rows, dtype=np.int32).reshape(count, width)


@given(neighbors(), st.integers(0, 3))
def test_by_sets(found, seed):
    chain = greedy_chain(found, seed)
    left, steps = set(range(len(found))), 0
    previous = None
    for current in chain.order.tolist():
        if previous is not None:
            best = [n for n in found[previous] if n in left]
            steps += bool(best)
            assert current == (best[0] if best else min(left))
        left.remove(current)
        previous = current
    assert not left
    assert chain.steps_to_neighbors == steps


def test_seed_chooses_the_first():
    found = np.zeros((1000, 0), np.int32)
    firsts = [int(greedy_chain(found, seed).order[0]) for seed in (1, 1, 2, 3)]
    assert firsts[0] == firsts[1]
    assert len(set(firsts)) == 3
    # Without neighbours: the order of the text, from there on from the beginning.
    rest = [number for number in range(1000) if number != firsts[0]]
    assert greedy_chain(found, 1).order[1:].tolist() == rest


def test_strange_ids():
    with pytest.raises(ValueError, match="from 0 to 1"):
        greedy_chain(np.array([[1], [2]], np.int32))


def test_time_is_linear():
    """In segments whose neighbours are all taken soon: what is unused must not be looked for from the
    beginning, which would take an hour."""
    found = np.tile(np.arange(10, dtype=np.int32), (200_000, 1))
    chain = greedy_chain(found)
    assert len(chain.order) == 200_000
    assert chain.steps_to_neighbors <= 10
