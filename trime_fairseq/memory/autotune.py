"""Which implementation ``impl="auto"`` takes on CUDA: measured once per kind of problem."""

import logging
import math
from typing import Any

import torch
from torch import Tensor

from .autograd import Forward, LseInputs
from .chunked import chunked_lse
from .numerics import on_device

logger = logging.getLogger(__name__)

# An implementation that is hardly faster is not worth results that differ in their last bits.
_WORTHWHILE = 1.1
# Whether Triton was faster, by device, dtype, dimension, with or without gradients, and sizes.
_chosen: dict[tuple[Any, ...], bool] = {}
# Devices and dtypes that Triton does not run on.
_broken: set[tuple[torch.device, torch.dtype]] = set()
_OUT_OF_MEMORY: Any = getattr(torch.cuda, "OutOfMemoryError", ())


def triton_if_faster(inputs: LseInputs, triton_lse: Forward) -> tuple[Tensor, Tensor] | None:
    """``triton_lse(inputs)`` if Triton is faster than chunks on this device and gives the same; else None.

    The first call for a device, dtype and size (to a factor of two, with and without gradients) runs both
    on the problem itself, a few times. Only these calls wait for the device. Where Triton fails it is not
    used again, and a warning says why.
    """
    queries, keys = inputs.queries, inputs.keys
    wants_grad = torch.is_grad_enabled() and (queries.requires_grad or keys.requires_grad)
    device_and_dtype = (queries.device, queries.dtype)
    kind = (*device_and_dtype, queries.size(1), wants_grad, *_rough_sizes(inputs))
    if device_and_dtype in _broken:
        return None
    try:
        if kind not in _chosen:
            with on_device(queries):
                faster = _is_faster(inputs, triton_lse, wants_grad)
            if faster is None:
                return None
            _chosen[kind] = faster
        return triton_lse(inputs) if _chosen[kind] else None
    except _OUT_OF_MEMORY:
        return None  # chunks may still fit: the trial holds the results of both
    except Exception as error:
        # Compilers and drivers raise errors of many kinds, and none of them should end a training.
        logger.warning(f"TRIME: the Triton kernels do not run here, so they are not used: {error}")
        _broken.add(device_and_dtype)
        return None


def _rough_sizes(inputs: LseInputs) -> tuple[int, ...]:
    """Queries and keys per part, and parts, to a factor of two: within it, kernels behave alike."""
    parts = inputs.visibility.repeats
    sizes = (inputs.queries.size(0) // parts, inputs.keys.size(0) // parts, parts)
    return tuple((size - 1).bit_length() for size in sizes)


def _is_faster(inputs: LseInputs, triton_lse: Forward, wants_grad: bool) -> bool | None:
    """None if this problem cannot tell, because its results are not finite."""
    found, triton_ms = _time(inputs, triton_lse, wants_grad)
    expected, chunked_ms = _time(inputs, chunked_lse, wants_grad)
    if any((tensor.isnan() | tensor.isposinf()).any() for tensor in expected):
        return None
    difference = max(_difference(*pair) for pair in zip(found, expected))
    tolerance = 1e-3 if inputs.queries.dtype == torch.float32 else 3e-2
    if not difference <= tolerance:
        logger.warning(
            f"TRIME: the Triton kernels differ by {difference:.1g} from the chunked implementation on this "
            "device, so they are not used; please report it"
        )
        return False
    faster = chunked_ms > _WORTHWHILE * triton_ms
    logger.info(
        f"TRIME: memory of {inputs.keys.size(0):,} keys for {inputs.queries.size(0):,} queries, "
        f"{inputs.queries.dtype}: Triton {triton_ms:.2f} ms, chunked {chunked_ms:.2f} ms; "
        f"{'Triton' if faster else 'chunked'} is used"
    )
    return faster


def _time(
    inputs: LseInputs, implementation: Forward, wants_grad: bool, repeats: int = 3
) -> tuple[tuple[Tensor, ...], float]:
    """Log-sum-exps and gradients, and the milliseconds of the fastest run of several, the first left out."""
    queries, keys = (t.detach().requires_grad_(wants_grad) for t in (inputs.queries, inputs.keys))
    inputs = inputs._replace(queries=queries, keys=keys)
    fastest = math.inf
    for repeat in range(repeats + 1):
        begin, end = _event(), _event()
        begin.record()
        found: tuple[Tensor, ...] = implementation(inputs)
        if wants_grad:
            total = torch.stack(found).masked_fill(torch.stack(found).isinf(), 0.0).sum()
            found += torch.autograd.grad(total, (queries, keys))
        end.record()
        end.synchronize()
        if repeat:
            fastest = min(fastest, begin.elapsed_time(end))
    return tuple(tensor.detach() for tensor in found), fastest


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _difference(first: Tensor, second: Tensor) -> float:
    """The largest difference, relative to the largest finite number; inf if they disagree about -inf."""
    first, second = first.float(), second.float()
    if not torch.equal(first.isinf(), second.isinf()):
        return math.inf
    first, second = (tensor.masked_fill(tensor.isinf(), 0.0) for tensor in (first, second))
    if not first.numel():
        return 0.0
    return ((first - second).abs().max() / second.abs().max().clamp_min(1e-6)).item()
