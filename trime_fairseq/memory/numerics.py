"""Products of tiles of queries and keys, summed in float32 (float64 for float64) whatever their dtype."""

from contextlib import nullcontext
from functools import cache
from typing import Any, ContextManager, List, Optional, Tuple, Union

import torch
from torch import Tensor

from .problem import accumulation_dtype

# Twice of it, the sum of two gradients, is still a number in float16.
_LARGEST = 2.0**14


def similarities(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """scale * <q, k>, [parts, queries, keys], of queries [parts, queries, d] and keys [parts, keys, d]."""
    dtype = accumulation_dtype(queries.dtype)
    if _gives_its_sums(queries.device, queries.dtype):
        return _sums(queries, keys.transpose(1, 2)).mul_(scale)
    return torch.bmm(queries.to(dtype) * scale, keys.to(dtype).transpose(1, 2))


def add_product(total: Tensor, first: Tensor, second: Tensor) -> None:
    """Adds ``first @ second``, a batch of matrices each, to ``total``, which is of the dtype of the sums.

    ``first`` is rounded to the dtype of ``second`` where that lets the device's fast products be used.
    """
    if _gives_its_sums(second.device, second.dtype):
        total += _sums(first.to(second.dtype), second)
    else:
        total.baddbmm_(first.to(total.dtype), second.to(total.dtype))


def relative_to_largest(*grads: Tensor) -> Tuple[List[Tensor], Union[Tensor, float]]:
    """Gradients in rows over a unit that makes the largest of them 2**14, and the unit, which stays on the
    device. In float16 fairseq's loss scale would overflow products of them with probabilities, and relative
    to 1 small probabilities would vanish."""
    rows = torch.stack(grads)
    unit = (rows.abs().amax() / _LARGEST).clamp_min(torch.finfo(rows.dtype).tiny) if rows.numel() else 1.0
    return list((rows / unit).unbind()), unit


def autocast_dtype(device_type: str) -> Optional[torch.dtype]:
    """The dtype of products under autocast; None without."""
    try:
        return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
    except RuntimeError:
        return None  # a device without autocast
    except (AttributeError, TypeError):  # before PyTorch 2.4
        if device_type == "cpu":
            return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def without_autocast(device_type: str) -> ContextManager[Any]:
    """In which products are not rounded to half precision."""
    # Entering the context costs as much as a small product.
    if autocast_dtype(device_type) is None:
        return nullcontext()
    return torch.autocast(device_type=device_type, enabled=False)


@cache
def _gives_its_sums(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of a half precision give the float32 sums that they make, as on CUDA since
    PyTorch 2.8. Where not, the factors are made float32 first: exact as well, but many times slower."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    tile = torch.zeros(1, 16, 16, dtype=dtype, device=device)
    try:
        return _sums(tile, tile.transpose(1, 2)).dtype == torch.float32
    except (TypeError, RuntimeError):
        return False


def _sums(first: Tensor, second: Tensor) -> Tensor:
    """A batch of products of half precision, in float32."""
    return torch.bmm(first, second, out_dtype=torch.float32)
