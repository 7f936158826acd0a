"""Which visible keys are the most similar ones of each query: tile by tile, without the N x M matrix."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .autograd import LseInputs
from .chunked import default_tile_size
from .numerics import accumulation_dtype, in_parts, similarities

# Queries and keys of a block where they are the same vectors.
_BLOCK, _BLOCK_OF_CPU = 4096, 768


def find_nearest(inputs: LseInputs, topk: int, metric: str) -> tuple[Tensor, Tensor]:
    """The largest scaled similarities of each query to visible keys, and the indices of these keys.

    Where the queries are the keys, as on a single device, each similarity is computed once for both.

    Args:
        inputs: of :func:`trime_fairseq.memory.nearest_lse`.
        topk, metric: as given there.

    Returns:
        Similarities in the dtype of sums, in no order, -inf where fewer are visible; indices among all keys,
        int64. Both [N, k], with k = ``topk``, or the number of keys of a part if that is smaller.
    """
    parts, dtype = inputs.visibility.repeats, accumulation_dtype(inputs.queries.dtype)
    shape = inputs.queries.size(0), min(topk, inputs.keys.size(0) // parts)
    values = inputs.queries.new_full(shape, -math.inf, dtype=dtype)
    indices = torch.zeros(shape, dtype=torch.int64, device=values.device)
    if not values.numel():
        return values, indices
    best = _Best(*in_parts(parts, values, indices))
    # By distance, the square of the query changes nothing in the order of its keys.
    squares = in_parts(parts, inputs.scale * squared_lengths(inputs.keys))[0] if metric == "l2" else None
    if _same_vectors(inputs.queries, inputs.keys) and inputs.visibility.hides_own_groups(shape[0]):
        _among_themselves(inputs, best, squares)
    else:
        _among_keys(inputs, best, squares)
    if metric == "l2":
        values -= inputs.scale * squared_lengths(inputs.queries).unsqueeze(1)
    return values, indices


def squared_lengths(vectors: Tensor) -> Tensor:
    """In the dtype of sums."""
    return vectors.to(accumulation_dtype(vectors.dtype)).square().sum(-1)


class _Best(NamedTuple):
    """The largest similarities so far and their keys, [parts, queries, k] each."""

    values: Tensor
    indices: Tensor

    def add(
        self, rows: tuple[slice, slice], similarity: Tensor, first_key: Tensor | int, first: bool
    ) -> None:
        """Takes in those of a tile.

        Args:
            rows: parts and queries of the tile.
            similarity: [parts, queries, keys].
            first_key: index of its first key; for each part, or for all.
            first: nothing was taken in for these queries before.
        """
        count = self.values.size(-1)
        values, indices = similarity.topk(min(count, similarity.size(-1)), sorted=False)
        indices += first_key
        if not first:
            indices = torch.cat([self.indices[rows], indices], dim=-1)
            values, chosen = torch.cat([self.values[rows], values], dim=-1).topk(count, sorted=False)
            indices = indices.gather(-1, chosen)
        self.values[rows][..., : values.size(-1)] = values
        self.indices[rows][..., : values.size(-1)] = indices


def _among_keys(inputs: LseInputs, best: _Best, squares: Tensor | None) -> None:
    """Fills ``best`` from the tiles that someone sees; with the scaled ``squares`` of keys, by distance."""
    inputs = inputs.with_tile_size(default_tile_size(inputs))
    parts, visibility = inputs.visibility.repeats, inputs.visibility
    firsts = torch.arange(parts, device=best.values.device).view(-1, 1, 1) * (inputs.keys.size(0) // parts)
    tiles, inputs = inputs.tiles(), inputs.in_parts()
    scale = inputs.scale if squares is None else 2 * inputs.scale
    for row, column, masked, first in tiles:
        similarity = similarities(inputs.queries[row], inputs.keys[column], scale)
        if squares is not None:
            similarity -= squares[column].unsqueeze(1)
        if masked:
            visibility.hide(similarity, row[1], column[1])
        first_key = column[1].start if parts == 1 else firsts[row[0]] + column[1].start
        best.add(row, similarity, first_key, first)


def _among_themselves(inputs: LseInputs, best: _Best, squares: Tensor | None) -> None:
    """The same where queries are keys that do not see their own group: what i is to j, j is to i."""
    vectors, visibility = inputs.queries.unsqueeze(0), inputs.visibility
    size = inputs.tile_size[0] or (_BLOCK_OF_CPU if vectors.device.type == "cpu" else _BLOCK)
    count = vectors.size(1)
    blocks = [slice(begin, min(begin + size, count)) for begin in range(0, count, size)]
    part = slice(0, 1)
    scale = inputs.scale if squares is None else 2 * inputs.scale
    for number, row in enumerate(blocks):
        for column in blocks[number:]:
            similarity = similarities(vectors[:, row], vectors[:, column], scale)
            if visibility.hides_some(row, column):
                visibility.hide(similarity, row, column)
            for rows, columns, of_rows in (
                (row, column, similarity),
                (column, row, similarity.transpose(1, 2)),
            ):
                if squares is not None:
                    of_rows = of_rows - squares[:, columns].unsqueeze(1)
                best.add((part, rows), of_rows, columns.start, first=columns.start == 0)
                if row == column:
                    break


def _same_vectors(one: Tensor, two: Tensor) -> bool:
    same = one.shape == two.shape and one.stride() == two.stride() and one.device == two.device
    return same and one.device.type != "meta" and one.data_ptr() == two.data_ptr()
