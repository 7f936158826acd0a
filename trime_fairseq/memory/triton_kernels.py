"""The Triton kernels of :mod:`trime_fairseq.memory.fused`.

Both walk over tiles of similarities, the products of BM queries and BN keys summed over slices of BD of their
dimensions, which never leave the chip. With TRITON_INTERPRET=1 they run on a CPU, for tests.
"""

import triton
import triton.language as tl


@triton.jit
def similarities(
    queries, keys, query, key, in_queries, in_keys, scale, dimension,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """scale * <q, k> of the rows ``query`` [BM] and ``key`` [BN], float32 [BM, BN]."""
    tile = tl.zeros([BM, BN], dtype=tl.float32)
    for start in range(0, dimension, BD):
        column = start + tl.arange(0, BD)
        inside = column < dimension
        q = tl.load(
            queries + query[:, None] * dimension + column[None, :],
            mask=in_queries[:, None] & inside[None, :],
            other=0.0,
        )
        k = tl.load(
            keys + key[None, :] * dimension + column[:, None],
            mask=in_keys[None, :] & inside[:, None],
            other=0.0,
        )
        # Without "ieee" float32 would be rounded to TF32.
        tile = tl.dot(q, k, tile, input_precision="ieee")
    return tile * scale


@triton.jit
def visible(rows, num_queries, query, key, in_queries, in_keys):
    """Which keys [BN] the queries [BM] of a part see: see :class:`trime_fairseq.memory.Visibility`."""
    begin = tl.load(rows + query, mask=in_queries, other=0)[:, None]
    end = tl.load(rows + num_queries + query, mask=in_queries, other=0)[:, None]
    skip_begin = tl.load(rows + 2 * num_queries + query, mask=in_queries, other=0)[:, None]
    skip_end = tl.load(rows + 3 * num_queries + query, mask=in_queries, other=0)[:, None]
    place = key[None, :]
    skipped = (place >= skip_begin) & (place < skip_end)
    return (place >= begin) & (place < end) & in_queries[:, None] & in_keys[None, :] & (~skipped)


@triton.jit
def add_to_lse(highest, total, tile):
    """The running maximum and sum of exponentials [BM] with those of a tile [BM, BN]."""
    new = tl.maximum(highest, tl.max(tile, axis=1))
    # exp(-inf - -inf) is NaN: a row that has seen nothing is compared with 0.
    reference = tl.where(new == float("-inf"), 0.0, new)
    total = total * tl.exp(highest - reference) + tl.sum(tl.exp(tile - reference[:, None]), axis=1)
    return new, total


@triton.jit
def forward(
    queries, keys, query_targets, key_tokens, rows, bounds, all_lse, positive_lse,
    scale, num_queries, num_keys, dimension,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Both log-sum-exps of BM queries of a part, in one pass over the tiles of keys that one of them may see.

    Grid: (blocks of queries, parts). ``rows`` int32 [4, num_queries] are the visibility of a part; ``bounds``
    int32 [4, blocks]: the keys that a block sees, and those that all of it skips.
    """
    block, part = tl.program_id(0), tl.program_id(1)
    blocks = tl.num_programs(0)
    query = block * BM + tl.arange(0, BM)
    in_queries = query < num_queries
    first_query = part.to(tl.int64) * num_queries
    first_key = part.to(tl.int64) * num_keys
    target = tl.load(query_targets + first_query + query, mask=in_queries, other=0)
    begin, end = tl.load(bounds + block), tl.load(bounds + blocks + block)
    gap_begin, gap_end = tl.load(bounds + 2 * blocks + block), tl.load(bounds + 3 * blocks + block)
    highest = tl.full([BM], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BM], dtype=tl.float32)
    highest_positive = tl.full([BM], float("-inf"), dtype=tl.float32)
    total_positive = tl.zeros([BM], dtype=tl.float32)
    for start in range(begin, end, BN):
        if (start < gap_begin) | (start + BN > gap_end):
            key = start + tl.arange(0, BN)
            in_keys = key < num_keys
            tile = similarities(
                queries, keys, first_query + query, first_key + key, in_queries, in_keys, scale,
                dimension, BM, BN, BD,
            )  # fmt: skip
            seen = visible(rows, num_queries, query, key, in_queries, in_keys)
            tile = tl.where(seen, tile, float("-inf"))
            highest, total = add_to_lse(highest, total, tile)
            token = tl.load(key_tokens + first_key + key, mask=in_keys, other=-1)
            positive = seen & (token[None, :] == target[:, None])
            # Few tiles of a large vocabulary have any.
            if tl.sum(positive.to(tl.int32)) > 0:
                tile = tl.where(positive, tile, float("-inf"))
                highest_positive, total_positive = add_to_lse(highest_positive, total_positive, tile)
    # log(0) is -inf, for rows that have seen nothing.
    reference = tl.where(total > 0, highest, 0.0)
    tl.store(all_lse + first_query + query, reference + tl.log(total), mask=in_queries)
    reference = tl.where(total_positive > 0, highest_positive, 0.0)
    tl.store(positive_lse + first_query + query, reference + tl.log(total_positive), mask=in_queries)


@triton.jit
def gradient(
    queries, keys, query_targets, key_tokens, rows,
    all_lse, positive_lse, grad_all, grad_positive, unit, out,
    scale, num_queries, num_keys, dimension, first_part, query_begin, query_end, key_begin, key_end,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The gradient in the scaled similarities of a tile, over ``unit``, a scalar on the device::

        G = grad_all * exp(sim - all_lse) + [positive] * grad_positive * exp(sim - positive_lse)

    Grid: (blocks of queries, blocks of keys, parts) of queries [query_begin, query_end) and keys [key_begin,
    key_end) of the parts from ``first_part`` on; ``out`` [parts, queries, keys].
    """
    part = first_part + tl.program_id(2)
    query = query_begin + tl.program_id(0) * BM + tl.arange(0, BM)
    key = key_begin + tl.program_id(1) * BN + tl.arange(0, BN)
    in_queries, in_keys = query < query_end, key < key_end
    first_query = part.to(tl.int64) * num_queries
    first_key = part.to(tl.int64) * num_keys
    tile = similarities(
        queries, keys, first_query + query, first_key + key, in_queries, in_keys, scale,
        dimension, BM, BN, BD,
    )  # fmt: skip
    seen = visible(rows, num_queries, query, key, in_queries, in_keys)
    row = first_query + query
    tile = tl.where(seen, tile, float("-inf"))
    # exp(-inf - inf) = 0 for rows that see nothing.
    lse = tl.load(all_lse + row, mask=in_queries, other=float("inf"))[:, None]
    upstream = tl.load(grad_all + row, mask=in_queries, other=0.0)[:, None]
    grad = tl.exp(tile - lse) * upstream
    target = tl.load(query_targets + row, mask=in_queries, other=0)
    token = tl.load(key_tokens + first_key + key, mask=in_keys, other=-1)
    positive = seen & (token[None, :] == target[:, None])
    if tl.sum(positive.to(tl.int32)) > 0:
        lse = tl.load(positive_lse + row, mask=in_queries, other=float("inf"))[:, None]
        upstream = tl.load(grad_positive + row, mask=in_queries, other=0.0)[:, None]
        grad += tl.where(positive, tl.exp(tile - lse), 0.0) * upstream
    grad = grad / tl.load(unit)
    width = key_end - key_begin
    place = tl.program_id(2).to(tl.int64) * (query_end - query_begin) + (query - query_begin)
    tl.store(
        out + place[:, None] * width + (key - key_begin)[None, :],
        grad.to(out.dtype.element_ty),
        mask=in_queries[:, None] & in_keys[None, :],
    )
