"""Dtypes and products of half precision, autocast, and host-to-device copies that do not synchronise."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

# Twice of it, the sum of two gradients, is still a number in float16.
LARGEST_GRADIENT = 2.0**14


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums: float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a CPU tensor to a device without synchronising, which a copy of pageable memory may do."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def on_device(tensor: Tensor) -> AbstractContextManager[Any]:
    """Context that launches kernels and records events on the tensor's GPU; does nothing on a CPU."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def in_parts(parts: int, *tensors: Tensor) -> list[Tensor]:
    """Views of shape [parts, rows per part, ...] of tensors [rows, ...]."""
    return [t.reshape(parts, t.size(0) // parts, *t.shape[1:]) for t in tensors]


def similarities(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """scale * <q, k>, [parts, queries, keys], of queries [parts, queries, d] and keys [parts, keys, d].

    Summed in float32 (float64 for float64), whatever the dtype of the factors.
    """
    if _sums_in_float32(queries.device, queries.dtype):
        return _float32_product(queries, keys.transpose(1, 2)).mul_(scale)
    dtype = accumulation_dtype(queries.dtype)
    return torch.bmm(queries.to(dtype) * scale, keys.to(dtype).transpose(1, 2))


def add_product(total: Tensor, first: Tensor, second: Tensor) -> None:
    """Adds ``first @ second``, a batch of matrices each, to ``total``, which has the dtype of sums.

    Rounds ``first`` to the dtype of ``second`` where the device multiplies that dtype faster.
    """
    if _sums_in_float32(second.device, second.dtype):
        total += _float32_product(first.to(second.dtype), second)
    else:
        total.baddbmm_(first.to(total.dtype), second.to(total.dtype))


def relative_to_largest(*grads: Tensor) -> tuple[list[Tensor], Tensor | float]:
    """Scales gradients so that the largest is 2**14; returns them and the unit they are measured in.

    In float16, fairseq's loss scale times a probability would overflow, and relative to 1 small
    probabilities would vanish. The unit stays on the device.
    """
    rows = torch.stack(grads)
    unit = (
        (rows.abs().amax() / LARGEST_GRADIENT).clamp_min(torch.finfo(rows.dtype).tiny)
        if rows.numel()
        else 1.0
    )
    return list((rows / unit).unbind()), unit


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype that autocast gives products; None without autocast."""
    try:
        return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
    except RuntimeError:
        return None  # a device without autocast
    except (AttributeError, TypeError):  # before PyTorch 2.4
        if device_type == "cpu":
            return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Context that disables autocast."""
    # Entering the context costs as much as a small product.
    if autocast_dtype(device_type) is None:
        return nullcontext()
    return torch.autocast(device_type=device_type, enabled=False)


@cache
def _sums_in_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """True if the device can return a product of half precision in float32, as CUDA can since PyTorch 2.8.

    Otherwise the factors are converted to float32 first: exact as well, but many times slower.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    tile = torch.zeros(1, 16, 16, dtype=dtype, device=device)
    try:
        return _float32_product(tile, tile.transpose(1, 2)).dtype == torch.float32
    except (TypeError, RuntimeError):
        return False


def _float32_product(first: Tensor, second: Tensor) -> Tensor:
    return torch.bmm(first, second, out_dtype=torch.float32)
