"""The Triton implementation of :func:`trime_fairseq.memory.memory_lse`.

Forward is one kernel that keeps all similarities on the chip. Backward computes the gradient in the
similarities of a tile in one kernel, in the dtype of the inputs, and leaves both products with it to the
device's own matrix multiplication. It has no atomic additions: results are the same in every run.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor

from . import triton_kernels as kernels
from .problem import Inputs, Plan, in_parts
from .recomputed import Results, recomputed_lse, zero_grads

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Queries and keys of a block on the chip, and the slice of their dimension that is loaded at once.
_BLOCK_M, _BLOCK_N, _BLOCK_D = 128, 128, 64
# A block of float32, which is not rounded to TF32, takes twice the room.
_BLOCK_D_FLOAT32 = 32
# Queries and keys whose gradients are held at a time, 32 MiB in half precision.
GRADIENT_TILE = (2048, 8192)


def fused_lse(inputs: Inputs, plan: Plan) -> Results:
    """See :func:`trime_fairseq.memory.memory_lse`.

    Raises:
        ValueError: for another dtype than float16, bfloat16 or float32.
    """
    if inputs.queries.dtype not in DTYPES:
        raise ValueError(f"impl='triton' takes float16, bfloat16 and float32, not {inputs.queries.dtype}")
    inputs = Inputs(*(tensor.contiguous() for tensor in inputs))
    return recomputed_lse(inputs, plan, _forward, _backward)


def _blocks(dtype: torch.dtype, num_queries: int) -> Tuple[int, int, int]:
    # Short segments fill a small block; a product on the chip has at least 16 rows.
    rows = max(16, min(_BLOCK_M, 1 << (num_queries - 1).bit_length())) if num_queries else _BLOCK_M
    return rows, _BLOCK_N, _BLOCK_D_FLOAT32 if dtype == torch.float32 else _BLOCK_D


def _forward(inputs: Inputs, plan: Plan) -> Results:
    queries, keys, query_targets, key_tokens = inputs
    visibility = plan.visibility
    parts = visibility.repeats
    all_lse, positive_lse = queries.new_empty((2, queries.size(0)), dtype=torch.float32)
    num_queries, num_keys = queries.size(0) // parts, keys.size(0) // parts
    if not num_queries:
        return all_lse, positive_lse
    bm, bn, bd = _blocks(queries.dtype, num_queries)
    bounds = visibility.block_bounds(num_keys, bm, queries.device)
    kernels.forward[bounds.size(1), parts](
        *inputs, visibility.rows_on(queries.device), bounds, all_lse, positive_lse,
        plan.scale, num_queries, num_keys, queries.size(1), bm, bn, bd,
    )  # fmt: skip
    return all_lse, positive_lse


def _backward(
    inputs: Inputs, results: Results, upstream: Results, plan: Plan, wanted: Tuple[bool, bool]
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    queries, keys, query_targets, key_tokens = inputs
    all_lse, positive_lse = results
    parts = plan.visibility.repeats
    num_queries, num_keys = queries.size(0) // parts, keys.size(0) // parts
    grads = zero_grads(inputs, wanted, torch.float32)
    grad_queries, grad_keys = (None if grad is None else in_parts(parts, grad)[0] for grad in grads)
    query_rows, key_rows = in_parts(parts, queries, keys)
    # fairseq's loss scale must not overflow half precision, so the gradient is taken relative to the largest
    # one of a row, which stays on the device.
    rows = torch.stack(upstream).float()
    unit = rows.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    bm, bn, bd = _blocks(queries.dtype, num_queries)
    for tile in plan.visibility.tiles(num_keys, plan.size):
        (shared, row), (_, column) = tile.row, tile.column
        shape = (shared.stop - shared.start, row.stop - row.start, column.stop - column.start)
        gradient = queries.new_empty(shape)
        grid = (-(-shape[1] // bm), -(-shape[2] // bn), shape[0])
        kernels.gradient[grid](
            queries, keys, query_targets, key_tokens, plan.visibility.rows_on(queries.device),
            all_lse, positive_lse, rows[0], rows[1], unit, gradient,
            plan.scale, num_queries, num_keys, queries.size(1), shared.start,
            row.start, row.stop, column.start, column.stop, bm, bn, bd,
        )  # fmt: skip
        if grad_queries is not None:
            grad_queries[tile.row] += torch.bmm(gradient, key_rows[tile.column]).float()
        begin, end = max(column.start, plan.key_grad[0]), min(column.stop, plan.key_grad[1])
        if grad_keys is not None and begin < end:
            part = gradient[..., begin - column.start : end - column.start]
            grad_keys[shared, begin:end] += torch.bmm(part.transpose(1, 2), query_rows[tile.row]).float()
    queries_grad, keys_grad = (None if grad is None else grad.mul_(unit * plan.scale) for grad in grads)
    return queries_grad, keys_grad
