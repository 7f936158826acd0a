"""The neighbours of all segments: in pieces, by shards, resumed."""

import os

import numpy as np
import pytest

from trime_fairseq.bm25 import SearchResults, greedy_chain, write_batches
from trime_fairseq.bm25.batches import BatchesInfo, order_hash
from trime_fairseq.data.predefined import read_predefined

from .numbers import K, N, Numbers, search
from .small import segments_of


@pytest.fixture
def segments(tmp_path):
    return segments_of(tmp_path, [str(number) for number in range(N)])


def test_never_itself(tmp_path, segments):
    ids, scores = search(segments, tmp_path / "r").read()
    assert ids[10].tolist() == [9, 11, 8]
    assert scores[10].tolist() == [3, 2, 1]
    assert ids[5].tolist() == [0, 1, 2]  # itself not among the best
    assert ids[7].tolist() == [-1, -1, -1]  # nothing but itself
    assert not (ids == np.arange(N)[:, None]).any()


def test_shards_in_any_order(tmp_path, segments):
    whole = search(segments, tmp_path / "whole").read()
    asked = []
    for shard in (2, 0):
        searcher = Numbers()
        search(segments, tmp_path / "r", searcher, shard_id=shard, num_shards=3)
        asked += searcher.asked
    with pytest.raises(
        ValueError, match=r"2 of 6 pieces are missing, .* segment 8: .*`num_shards` 3 `shard_id` 1$"
    ):
        SearchResults.open(str(tmp_path / "r")).read()
    with pytest.raises(ValueError, match="pieces are missing"):
        write_batches(SearchResults.open(str(tmp_path / "r")), str(tmp_path / "batches.json"))
    assert not (tmp_path / "batches.json").exists()
    # Another division of the work finds what is there.
    searcher = Numbers()
    results = search(segments, tmp_path / "r", searcher, num_shards=1)
    assert sorted(asked + searcher.asked) == list(range(N))
    for ours, expected in zip(results.read(), whole):
        np.testing.assert_array_equal(ours, expected)


def test_resumed(tmp_path, segments):
    whole = search(segments, tmp_path / "whole").read()

    class Dies(Numbers):
        def search(self, queries, k):
            if "13" in queries:
                raise KeyboardInterrupt
            return super().search(queries, k)

    with pytest.raises(KeyboardInterrupt):
        search(segments, tmp_path / "r", Dies())
    searcher = Numbers()
    results = search(segments, tmp_path / "r", searcher)
    assert searcher.asked == list(range(12, N))
    for ours, expected in zip(results.read(), whole):
        np.testing.assert_array_equal(ours, expected)


def test_other_results_in_the_folder(tmp_path, segments):
    search(segments, tmp_path / "r", num_shards=2)
    with pytest.raises(ValueError, match=r"another search \(there / here: k 3 / 2\): remove it"):
        search(segments, tmp_path / "r", k=2)
    with pytest.raises(ValueError, match="text_hash"):
        search(segments_of(tmp_path, ["0", "1"]), tmp_path / "r")
    with pytest.raises(ValueError, match="run trime-bm25 search"):
        SearchResults.open(str(tmp_path))


def test_damaged_list_is_written_again(tmp_path, segments):
    results, path = search(segments, tmp_path / "r"), tmp_path / "b.json"
    write_batches(results, str(path))
    whole = path.read_text()
    for content in ("", whole[:-5], "[" + ", ".join(map(str, range(N))) + "]"):
        path.write_text(content)
        write_batches(results, str(path))
        assert path.read_text() == whole


def test_a_list_of_others_is_not_overwritten(tmp_path, segments):
    results, path = search(segments, tmp_path / "r"), tmp_path / "b.json"
    path.write_text("[2, 1, 0]")
    with pytest.raises(ValueError, match=r"^`batch_file` .*b.json is there, without the .info"):
        write_batches(results, str(path))
    assert path.read_text() == "[2, 1, 0]"
    (tmp_path / "other").mkdir()
    other = segments_of(tmp_path / "other", [str(number) for number in reversed(range(N))])
    path = tmp_path / "c.json"
    write_batches(results, str(path))
    with pytest.raises(ValueError, match="c.json is there, a list of other segments .*text_hash"):
        write_batches(search(other, tmp_path / "o"), str(path))
    with pytest.raises(ValueError, match="^`batch_file` .*/proc/b.json"):
        write_batches(results, "/proc/b.json")


@pytest.mark.parametrize("seed", [-1, 10**30])
def test_impossible_seeds(tmp_path, segments, seed):
    with pytest.raises(ValueError, match="^`seed` must"):
        write_batches(search(segments, tmp_path / "r"), str(tmp_path / "b.json"), seed)
    assert not (tmp_path / "b.json.info").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 10**9}, "`k` must be at most 1,000, not 1000000000"),
        ({"num_shards": 10**9}, "`num_shards` must be at most 100,000"),
        ({"piece": 10**12}, "`piece` must be at most"),
        ({"piece": -4}, "`piece` must be positive, not -4"),
        ({"num_shards": 2, "shard_id": -1}, "`shard_id` -1 is not one of"),
        ({"k": 0}, "`k` must be positive"),
        ({"num_shards": 0}, "`num_shards` must be positive"),
        ({"num_shards": 2, "shard_id": 2}, "`shard_id` 2 is not one of the `num_shards` 2: 0 to 1"),
        ({"piece": 0}, "`piece` must be positive"),
    ],
)
def test_impossible_numbers(tmp_path, segments, settings, message):
    with pytest.raises(ValueError, match=message):
        search(segments, tmp_path / "r", **settings)


def test_list_and_description(tmp_path, segments):
    results = search(segments, tmp_path / "r")
    path = str(tmp_path / "deep" / "batches.json")
    info = write_batches(results, path, seed=4)
    order = greedy_chain(results.read()[0], seed=4).order.tolist()
    assert open(path).read() == f"{order}\n"
    assert info.order_hash == order_hash(order)
    assert sorted(os.listdir(tmp_path / "deep")) == ["batches.json", "batches.json.info"]
    assert BatchesInfo.read(path) == info
    assert (info.segments, info.k, info.seed, info.engine) == (N, K, 4, "numbers")
    assert info.text_hash == segments.info.text_hash
    written = os.stat(path).st_mtime_ns
    write_batches(results, path, seed=4)
    assert os.stat(path).st_mtime_ns == written
    write_batches(results, path, seed=5)
    assert BatchesInfo.read(path).seed == 5
    # The description of one list beside another: training refuses it.
    assert read_predefined(path, N, 1).tolist() != order
    open(path, "w").write(str(order))
    with pytest.raises(ValueError, match="is not the list that"):
        read_predefined(path, N, 1)
