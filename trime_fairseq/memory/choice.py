"""Which implementation ``impl="auto"`` takes: measured once on the device, not guessed."""

import logging
import math
from typing import Any, Callable, Dict, Tuple

import torch
from torch import Tensor

from .chunked import chunked_lse
from .problem import Inputs, Plan

logger = logging.getLogger(__name__)

Compute = Callable[[Inputs, Plan], Tuple[Tensor, Tensor]]
# An implementation that is hardly faster is not worth results that differ in their last bits.
_WORTHWHILE = 1.1
# By device, dtype, dimension, whether gradients are wanted, and sizes to a factor of two.
_chosen: Dict[Tuple[Any, ...], bool] = {}


def fused_is_faster(inputs: Inputs, plan: Plan, fused: Compute, fused_plan: Plan) -> bool:
    """Whether ``fused`` takes less time than the chunked implementation on this device, for a problem like
    this one, with the same results.

    The first call for a device, dtype and size runs both on the problem itself, a few times; this is the only
    one that waits for the device. If ``fused`` fails there, or gives something else, it is not used, and a
    warning says why.
    """
    wants_grad = torch.is_grad_enabled() and (inputs.queries.requires_grad or inputs.keys.requires_grad)
    sizes = (inputs.queries.size(0), inputs.keys.size(0), plan.visibility.repeats)
    place = (
        *(inputs.queries.device, inputs.queries.dtype, inputs.queries.size(1), wants_grad),
        *(size.bit_length() for size in sizes),
    )
    if place not in _chosen:
        _chosen[place] = _try_both(inputs, plan, fused, fused_plan, wants_grad)
    return _chosen[place]


def _try_both(inputs: Inputs, plan: Plan, fused: Compute, fused_plan: Plan, wants_grad: bool) -> bool:
    try:
        results, milliseconds = _time(inputs, fused_plan, fused, wants_grad)
    except Exception as error:
        # Compilers and drivers raise errors of many kinds, and no training should end by one.
        logger.warning(f"TRIME: the Triton kernels do not run here, so they are not used: {error}")
        return False
    expected, milliseconds_chunked = _time(inputs, plan, chunked_lse, wants_grad)
    difference = max(_difference(*pair) for pair in zip(results, expected))
    tolerance = 1e-3 if inputs.queries.dtype == torch.float32 else 3e-2
    if not difference <= tolerance:
        logger.warning(
            f"TRIME: the Triton kernels differ by {difference:.1g} from the chunked implementation on this "
            "device, so they are not used; please report it"
        )
        return False
    ratio = milliseconds_chunked / milliseconds
    logger.info(
        f"TRIME: memory of {inputs.keys.size(0):,} keys for {inputs.queries.size(0):,} queries, "
        f"{inputs.queries.dtype}: Triton {milliseconds:.2f} ms, chunked {milliseconds_chunked:.2f} ms"
    )
    return ratio > _WORTHWHILE


def _time(
    inputs: Inputs, plan: Plan, compute: Compute, wants_grad: bool, repeats: int = 3
) -> Tuple[Tuple[Tensor, ...], float]:
    """Results and gradients, and the milliseconds of the fastest of ``repeats`` runs after a first one."""
    queries, keys = (tensor.detach().requires_grad_(wants_grad) for tensor in inputs[:2])
    inputs = Inputs(queries, keys, *inputs[2:])
    fastest = math.inf
    for repeat in range(repeats + 1):
        begin, end = _event(), _event()
        begin.record()
        found: Tuple[Tensor, ...] = compute(inputs, plan)
        if wants_grad:
            total = torch.stack(found).masked_fill(torch.stack(found).isinf(), 0.0).sum()
            found += torch.autograd.grad(total, (queries, keys))
        end.record()
        end.synchronize()
        if repeat:
            fastest = min(fastest, begin.elapsed_time(end))
    return tuple(part.detach() for part in found), fastest


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _difference(first: Tensor, second: Tensor) -> float:
    """The largest, relative to the largest finite number; NaN or inf if they disagree about those."""
    first, second = first.float(), second.float()
    if not torch.equal(first.isinf(), second.isinf()):
        return math.inf
    first, second = (tensor.masked_fill(tensor.isinf(), 0.0) for tensor in (first, second))
    if not first.numel():
        return 0.0
    return ((first - second).abs().max() / second.abs().max().clamp_min(1e-6)).item()
