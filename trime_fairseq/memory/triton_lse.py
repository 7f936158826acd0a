"""The Triton implementation of :func:`trime_fairseq.memory.memory_lse`.

Forward is one kernel that keeps all similarities on the chip; many keys are split among programs, so that few
queries fill a device, too. Backward computes the gradient in the similarities of a tile in one kernel, in the
dtype of the inputs, and leaves both products with it to the device's own matrix multiplication. There are no
atomic additions: results are the same in every run.
"""

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import triton_kernels as kernels
from .autograd import LseInputs, recomputed_lse
from .numerics import on_device
from .tiling import Tile

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Queries and keys whose gradients are held at a time, 32 MiB in half precision.
_GRADIENT_TILE = (2048, 8192)
# Keys of a program of the forward kernel: 32 blocks.
_SPLIT = 2048


def triton_lse(inputs: LseInputs) -> tuple[Tensor, Tensor]:
    """See :func:`trime_fairseq.memory.memory_lse`.

    Raises:
        ValueError: for another dtype than float16, bfloat16 or float32, or on a CPU outside of Triton's
            interpreter.
    """
    if not inputs.queries.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError("impl='triton' needs a CUDA device: use 'auto' or 'chunked'")
    if inputs.queries.dtype not in DTYPES:
        raise ValueError(f"impl='triton' takes float16, bfloat16 and float32, not {inputs.queries.dtype}")
    # In 64 bits tokens would take the registers that a block's similarities need.
    targets, tokens = (t.int().contiguous() for t in (inputs.query_targets, inputs.key_tokens))
    queries, keys = inputs.queries.contiguous(), inputs.keys.contiguous()
    inputs = inputs._replace(queries=queries, keys=keys, query_targets=targets, key_tokens=tokens)
    return recomputed_lse(inputs.with_tile_size(_GRADIENT_TILE), _forward, _gradient)


def _blocks(queries: Tensor, num_queries: int) -> dict[str, Any]:
    """Queries BM and keys BN of a block on the chip, the slice BD of their D dimensions that is loaded at
    once, the warps that share the work, and the slices in flight.

    Chosen from what the compiler says of registers: larger blocks spill theirs, and of these two blocks share
    a multiprocessor, so that one computes exponentials while the other multiplies.
    """
    # Short segments fill a small block; a product on the chip has at least 16 rows.
    rows = max(16, min(128, 1 << (num_queries - 1).bit_length()))
    # A block of float32, which is not rounded to TF32, takes twice the room.
    width = 32 if queries.dtype == torch.float32 else 64
    slices = {"BM": rows, "BN": 64, "BD": width, "D": queries.size(-1)}
    return {**slices, "num_warps": 4, "num_stages": _stages(queries.device)}


@cache
def _stages(device: torch.device) -> int:
    """A stage takes 24 KiB of a multiprocessor, and two blocks share one: consumer GPUs have 100 KiB."""
    if device.type != "cuda":
        return 2
    properties = torch.cuda.get_device_properties(device)
    return 3 if getattr(properties, "shared_memory_per_block_optin", 0) >= 128 * 1024 else 2


def _forward(inputs: LseInputs) -> tuple[Tensor, Tensor]:
    queries, visibility = inputs.queries, inputs.visibility
    parts, total = visibility.repeats, queries.size(0)
    num_queries, num_keys = total // parts, inputs.keys.size(0) // parts
    splits = max(1, -(-num_keys // _SPLIT))
    # [A and P, splits, N]
    lse = queries.new_empty((2, splits, total), dtype=torch.float32)
    if not total:
        return lse[0, 0], lse[1, 0]
    blocks = _blocks(queries, num_queries)
    grid = (-(-num_queries // blocks["BM"]), splits, parts)
    with on_device(queries):
        kernels.forward[grid](
            *inputs[:4], visibility.rows_on(queries.device), lse,
            inputs.scale, num_queries, num_keys, SPLIT=_SPLIT, **blocks,
        )  # fmt: skip
    all_lse, positive_lse = lse[:, 0] if splits == 1 else lse.logsumexp(1)
    return all_lse, positive_lse


def _gradient(
    inputs: LseInputs, lses: tuple[Tensor, Tensor], grads: tuple[Tensor, Tensor], tile: Tile
) -> Tensor:
    queries, keys = inputs.queries, inputs.keys
    (shared, row), (_, column) = tile.row, tile.column
    shape = (shared.stop - shared.start, row.stop - row.start, column.stop - column.start)
    gradient = queries.new_empty(shape)
    blocks = _blocks(queries, queries.size(1))
    grid = (-(-shape[1] // blocks["BM"]), -(-shape[2] // blocks["BN"]), shape[0])
    with on_device(queries):
        kernels.gradient[grid](
            *inputs[:4], inputs.visibility.rows_on(queries.device), *lses, *grads, gradient,
            inputs.scale, queries.size(1), keys.size(1), shared.start,
            row.start, row.stop, column.start, column.stop, **blocks,
        )  # fmt: skip
    return gradient
