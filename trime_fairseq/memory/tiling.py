"""Cuts the N x M plane of queries and keys into tiles and drops those that nobody may see."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Below this a block is not cut at a segment border: many tiny products cost more than the few
# masked entries that a block over several short segments computes for nothing.
_SMALLEST_BLOCK = 64


class KeyTile(NamedTuple):
    """Keys ``[begin, end)``; ``masked`` when some query of the block may not see some of them."""

    begin: int
    end: int
    masked: bool


class QueryBlock(NamedTuple):
    """Queries ``[begin, end)`` and the tiles of keys that at least one of them may see."""

    begin: int
    end: int
    tiles: list[KeyTile]


class Tile(NamedTuple):
    """Parts x queries x keys whose similarities are held at a time.

    ``row`` and ``column`` index queries [parts, queries per part, ...] and keys [parts, keys per part, ...];
    ``first`` is the first tile of its queries.
    """

    row: tuple[slice, slice]
    column: tuple[slice, slice]
    masked: bool
    first: bool


def share_between_parts(blocks: list[QueryBlock], parts: int, tile_size: int) -> list[Tile]:
    """Tiles of ``parts`` equal parts, each cut into the given blocks. A tile holds as many parts as fit into
    ``tile_size`` similarities."""
    tiles = []
    for block in blocks:
        for number, (begin, end, masked) in enumerate(block.tiles):
            step = max(1, tile_size // ((block.end - block.begin) * (end - begin)))
            for part in range(0, parts, step):
                shared = slice(part, min(part + step, parts))
                row, column = (shared, slice(block.begin, block.end)), (shared, slice(begin, end))
                tiles.append(Tile(row, column, masked, first=number == 0))
    return tiles


def cut_into_blocks(
    rows: NDArray[np.int64], num_keys: int, query_block: int, key_block: int
) -> list[QueryBlock]:
    """Blocks of at most ``query_block`` queries with tiles of at most ``key_block`` keys.

    Args:
        rows: begin, end, skip_begin, skip_end of each query, shape [4, N].
        num_keys: number of keys M; intervals are clipped to [0, M).

    Returns:
        Blocks that partition the queries in order; the tiles of a block are disjoint and cover every
        key that one of its queries sees. Queries that see nothing may end up in a block without tiles.
    """
    begin, end, skip_begin, skip_end = np.clip(rows, 0, num_keys)
    end = np.maximum(begin, end)
    # A query whose interval starts where all before it have ended opens a new segment.
    furthest = np.maximum.accumulate(end) if end.size else end
    borders = set((np.flatnonzero(begin[1:] >= furthest[:-1]) + 1).tolist())
    blocks = []
    first = 0
    while first < end.size:
        last = min(first + query_block, end.size)
        for border in range(first + _SMALLEST_BLOCK, last):
            if border in borders:
                last = border
                break
        part = slice(first, last)
        tiles = _key_tiles(begin[part], end[part], skip_begin[part], skip_end[part], key_block)
        blocks.append(QueryBlock(first, last, tiles))
        first = last
    return blocks


def _key_tiles(
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    skip_begin: NDArray[np.int64],
    skip_end: NDArray[np.int64],
    key_block: int,
) -> list[KeyTile]:
    sees = end > begin
    if not sees.any():
        return []
    low, high = int(begin[sees].min()), int(end[sees].max())
    # Keys that every query of the block skips are never computed.
    gap_begin, gap_end = int(skip_begin.max()), int(skip_end.min())
    runs = [(low, high)]
    if gap_begin < gap_end:
        runs = [(low, min(high, gap_begin)), (max(low, gap_end), high)]
    skips = skip_end > skip_begin
    tiles = []
    for run_begin, run_end in runs:
        for tile_begin in range(run_begin, run_end, key_block):
            tile_end = min(tile_begin + key_block, run_end)
            seen_by_all = bool(sees.all()) and int(begin.max()) <= tile_begin <= tile_end <= int(end.min())
            touched = skips & (skip_begin < tile_end) & (skip_end > tile_begin)
            tiles.append(KeyTile(tile_begin, tile_end, not seen_by_all or bool(touched.any())))
    return tiles
