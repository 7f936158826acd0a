"""The Triton kernels of :mod:`trime_fairseq.memory.triton_lse`.

Both walk over tiles of similarities, the products of BM queries and BN keys summed over slices of BD of their
D dimensions, which never leave the chip. With TRITON_INTERPRET=1 they run on a CPU, for tests.
"""

import triton
import triton.language as tl


@triton.jit
def similarities(
    queries, keys, in_queries, in_keys, scale,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """scale * <q, k> of BM rows from ``queries`` on and BN rows from ``keys`` on, float32 [BM, BN]."""
    # Offsets from the first row of a block fit into 32 bits, and so take half the registers.
    column = tl.arange(0, BD)
    q_offset = tl.arange(0, BM)[:, None] * D + column[None, :]
    k_offset = tl.arange(0, BN)[None, :] * D + column[:, None]
    tile = tl.zeros([BM, BN], dtype=tl.float32)
    for start in range(0, D, BD):
        q_mask, k_mask = in_queries[:, None], in_keys[None, :]
        if D % BD != 0:
            inside = column < D - start
            q_mask, k_mask = q_mask & inside[None, :], k_mask & inside[:, None]
        q = tl.load(queries + start + q_offset, mask=q_mask, other=0.0)
        k = tl.load(keys + start + k_offset, mask=k_mask, other=0.0)
        # Without "ieee" float32 would be rounded to TF32.
        tile = tl.dot(q, k, tile, input_precision="ieee")
    return tile * scale


@triton.jit
def limits(rows, num_queries, num_keys, query, in_queries):
    """begin, end, skip_begin, skip_end of the queries [BM]: see :class:`trime_fairseq.memory.Visibility`.
    Rows beyond the last query see nothing, and none sees beyond the last key."""
    begin = tl.load(rows + query, mask=in_queries, other=0)
    end = tl.minimum(tl.load(rows + num_queries + query, mask=in_queries, other=0), num_keys)
    skip_begin = tl.load(rows + 2 * num_queries + query, mask=in_queries, other=0)
    skip_end = tl.load(rows + 3 * num_queries + query, mask=in_queries, other=0)
    return begin, end, skip_begin, skip_end


@triton.jit
def common_range(begin, end, skip_begin, skip_end, num_keys):
    """For a block: the keys [low, high) outside of which none of its queries sees anything, and [gap_begin,
    gap_end), which all of them skip."""
    # What sees nothing restricts nothing.
    sees = end > begin
    low = tl.maximum(tl.min(tl.where(sees, begin, num_keys), axis=0), 0)
    high = tl.max(tl.where(sees, end, 0), axis=0)
    gap_begin = tl.max(tl.where(sees, skip_begin, 0), axis=0)
    gap_end = tl.min(tl.where(sees, skip_end, num_keys), axis=0)
    return low, high, gap_begin, gap_end


@triton.jit
def visible(begin, end, skip_begin, skip_end, key):
    """Which keys [BN] the queries [BM] see."""
    key = key[None, :]
    inside = (key >= begin[:, None]) & (key < end[:, None])
    return inside & ((key < skip_begin[:, None]) | (key >= skip_end[:, None]))


@triton.jit
def add_to_lse(highest, total, tile):
    """The running maximum and sum of exponentials [BM] with those of a tile [BM, BN]."""
    new = tl.maximum(highest, tl.max(tile, axis=1))
    # exp(-inf - -inf) is NaN: a row that has seen nothing is compared with 0.
    reference = tl.where(new == float("-inf"), 0.0, new)
    total = total * tl.exp(highest - reference) + tl.sum(tl.exp(tile - reference[:, None]), axis=1)
    return new, total


@triton.jit
def finished_lse(highest, total):
    """log(0) is -inf, for rows that have seen nothing."""
    return tl.where(total > 0, highest, 0.0) + tl.log(total)


@triton.jit(do_not_specialize=["num_queries", "num_keys"])
def forward(
    queries, keys, query_targets, key_tokens, rows, lse, scale, num_queries, num_keys,
    SPLIT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Both log-sum-exps of BM queries of a part over the SPLIT keys of a split, in one pass over the tiles of
    keys that one of the queries may see.

    Grid: (blocks of queries, splits, parts). ``rows`` int32 [4, num_queries] are the visibility of a part;
    ``lse`` float32 [2, splits, queries of all parts].
    """
    split, part = tl.program_id(1), tl.program_id(2)
    query_begin = tl.program_id(0) * BM
    query = query_begin + tl.arange(0, BM)
    in_queries = query < num_queries
    first_query = part.to(tl.int64) * num_queries
    first_key = part.to(tl.int64) * num_keys
    target = tl.load(query_targets + first_query + query, mask=in_queries, other=0)
    begin, end, skip_begin, skip_end = limits(rows, num_queries, num_keys, query, in_queries)
    low, high, gap_begin, gap_end = common_range(begin, end, skip_begin, skip_end, num_keys)
    highest = tl.full([BM], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BM], dtype=tl.float32)
    highest_positive = tl.full([BM], float("-inf"), dtype=tl.float32)
    total_positive = tl.zeros([BM], dtype=tl.float32)
    # Blocks of keys lie on a fixed grid: loads are aligned, and no key belongs to two splits.
    first = tl.maximum(low // BN * BN, split * SPLIT)
    for start in range(first, tl.minimum(high, (split + 1) * SPLIT), BN):
        if (start < gap_begin) | (start + BN > gap_end):
            key = start + tl.arange(0, BN)
            in_keys = key < num_keys
            tile = similarities(
                queries + (first_query + query_begin) * D, keys + (first_key + start) * D,
                in_queries, in_keys, scale, BM, BN, BD, D,
            )  # fmt: skip
            seen = visible(begin, end, skip_begin, skip_end, key)
            tile = tl.where(seen, tile, float("-inf"))
            highest, total = add_to_lse(highest, total, tile)
            token = tl.load(key_tokens + first_key + key, mask=in_keys, other=-1)
            positive = seen & (token[None, :] == target[:, None])
            # Few tiles of a large vocabulary have any.
            if tl.sum(positive.to(tl.int32)) > 0:
                tile = tl.where(positive, tile, float("-inf"))
                highest_positive, total_positive = add_to_lse(highest_positive, total_positive, tile)
    # [A and P, splits, N]
    all_queries = tl.num_programs(2).to(tl.int64) * num_queries
    out = lse + split * all_queries + first_query + query
    tl.store(out, finished_lse(highest, total), mask=in_queries)
    out += tl.num_programs(1) * all_queries
    tl.store(out, finished_lse(highest_positive, total_positive), mask=in_queries)


# Nearly every tile of a ragged batch would otherwise be compiled for.
@triton.jit(
    do_not_specialize=[
        *("num_queries", "num_keys", "first_part", "query_begin", "query_end", "key_begin", "key_end")
    ]
)
def gradient(
    queries, keys, query_targets, key_tokens, rows,
    all_lse, positive_lse, grad_all, grad_positive, out,
    scale, num_queries, num_keys, first_part, query_begin, query_end, key_begin, key_end,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """The gradient in the scaled similarities of a tile: see
    :data:`trime_fairseq.memory.autograd.TileGradient`.

    Grid: (blocks of queries, blocks of keys, parts) of queries [query_begin, query_end) and keys [key_begin,
    key_end) of the parts from ``first_part`` on; ``out`` [parts, queries, keys].
    """
    part = first_part + tl.program_id(2)
    query_start = query_begin + tl.program_id(0) * BM
    query = query_start + tl.arange(0, BM)
    start = key_begin + tl.program_id(1) * BN
    key = start + tl.arange(0, BN)
    in_queries, in_keys = query < query_end, key < key_end
    first_query = part.to(tl.int64) * num_queries
    first_key = part.to(tl.int64) * num_keys
    begin, end, skip_begin, skip_end = limits(rows, num_queries, num_keys, query, in_queries)
    low, high, gap_begin, gap_end = common_range(begin, end, skip_begin, skip_end, num_keys)
    grad = tl.zeros([BM, BN], dtype=tl.float32)
    # A block that nobody sees is zero without its product.
    if (start < high) & (start + BN > low) & ((start < gap_begin) | (start + BN > gap_end)):
        tile = similarities(
            queries + (first_query + query_start) * D, keys + (first_key + start) * D,
            in_queries, in_keys, scale, BM, BN, BD, D,
        )  # fmt: skip
        seen = visible(begin, end, skip_begin, skip_end, key)
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
    width = key_end - key_begin
    out_row = tl.program_id(2).to(tl.int64) * (query_end - query_begin) + (query - query_begin)
    tl.store(
        out + out_row[:, None] * width + (key - key_begin)[None, :],
        grad.to(out.dtype.element_ty),
        mask=in_queries[:, None] & in_keys[None, :],
    )
