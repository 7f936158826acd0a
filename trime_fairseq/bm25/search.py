"""The neighbours of every segment."""

import numpy as np

from ..flags.bounds import Bounds, check_argument
from .engines.base import NONE, Hits, Searcher, no_hits
from .limits import MOST_SEGMENTS, MOST_SHARDS
from .progress import progress_bar
from .results import SearchInfo, SearchResults
from .segments import Segments

# More neighbours than that, and than there are segments, are a typing error.
_MOST_NEIGHBORS = 1000


def search_segments(
    segments: Segments,
    searcher: Searcher,
    results_path: str,
    *,
    k: int = 50,
    at_once: int = 64,
    shard_id: int = 0,
    num_shards: int = 1,
    piece: int = 500,
) -> SearchResults:
    """Writes the ``k`` best other segments of each segment into a folder; pieces that are there are kept.

    Args:
        segments: all of them, also with shards.
        at_once: queries that go to the searcher together.
        shard_id, num_shards: of consecutive pieces; all shards write into the same folder.
        piece: segments of a file, which is what a kill costs at most.

    Raises:
        ValueError: for impossible numbers, or if the folder holds results of another search.
    """
    check_argument("k", k, Bounds(1, max(_MOST_NEIGHBORS, segments.info.segments)))
    check_argument("num_shards", num_shards, Bounds(1, MOST_SHARDS))
    check_argument("piece", piece, Bounds(1, MOST_SEGMENTS))
    if not 0 <= shard_id < num_shards:
        raise ValueError(
            f"`shard_id` {shard_id} is not one of the `num_shards` {num_shards}: 0 to {num_shards - 1}"
        )
    info = SearchInfo.made_from(
        segments.info, engine=searcher.engine, k=k, piece=piece, num_shards=num_shards
    )
    results = SearchResults.create(results_path, info)
    pieces = list(results.pieces(shard_id, num_shards))
    total = sum(end - begin for begin, end in pieces)
    # Damaged ones are searched again.
    done = {begin: end - begin for begin, end in pieces if results.has(begin)}
    with progress_bar(total=total, initial=sum(done.values()), desc="BM25 search") as progress:
        for begin, end in pieces:
            if begin in done or results.has(begin):
                continue
            ids, scores = no_hits(end - begin, k)
            for start in range(begin, end, at_once):
                stop = min(end, start + at_once)
                rows = slice(start - begin, stop - begin)
                ids[rows], scores[rows] = _others(searcher, segments.texts[start:stop], start, k)
                progress.update(stop - start)
            try:
                results.write(begin, ids, scores)
            except ValueError as error:
                raise ValueError(
                    f"`index_path` finds ids that are no segments ({error}): remove it and build it again"
                ) from error
    return results


def _others(searcher: Searcher, texts: list[str], first: int, k: int) -> Hits:
    """The best ``k`` segments for each text, without the segment whose text it is."""
    try:
        found, found_scores = searcher.search(texts, k + 1)
    except MemoryError as error:
        message = f"no memory for the neighbours of {len(texts)} segments ({error}): lower `threads` or `k`"
        raise ValueError(message) from error
    itself = found == np.arange(first, first + len(texts))[:, None]
    # Where copies of a segment come before it, the last hit has to go.
    itself[~itself.any(axis=1), k] = True
    ids, scores = found[~itself].reshape(-1, k), found_scores[~itself].reshape(-1, k)
    # An engine may leave gaps of segments without score.
    gaps = np.argsort(ids == NONE, axis=1, kind="stable")
    return np.take_along_axis(ids, gaps, axis=1), np.take_along_axis(scores, gaps, axis=1)
