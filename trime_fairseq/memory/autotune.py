"""Which implementation ``impl="auto"`` takes: measured once on the device, not guessed."""

import logging
import math
from typing import Any, Callable, Dict, Optional, Set, Tuple

import torch
from torch import Tensor

from .chunked import chunked_lse
from .host import on_device
from .problem import Inputs, Plan
from .recomputed import Results

logger = logging.getLogger(__name__)

Compute = Callable[[Inputs, Plan], Results]
# An implementation that is hardly faster is not worth results that differ in their last bits.
_WORTHWHILE = 1.1
# By device, dtype, dimension, whether gradients are wanted, and sizes to a factor of two.
_chosen: Dict[Tuple[Any, ...], bool] = {}
# Devices and dtypes that it does not run on.
_broken: Set[Tuple[torch.device, torch.dtype]] = set()
_OUT_OF_MEMORY: Any = getattr(torch.cuda, "OutOfMemoryError", ())


def fused_if_faster(inputs: Inputs, plan: Plan, fused: Compute, fused_plan: Plan) -> Optional[Results]:
    """The results of ``fused`` if it takes less time than the chunked implementation on this device, for
    problems of this kind, and gives the same; None otherwise.

    The first call for a device, dtype and size (to a factor of two, with and without gradients) runs both on
    the problem itself, a few times; only these calls wait for the device. Where ``fused`` fails it is not
    used, and a warning says why.
    """
    queries, keys = inputs[:2]
    wants_grad = torch.is_grad_enabled() and (queries.requires_grad or keys.requires_grad)
    home = (queries.device, queries.dtype)
    place = (*home, queries.size(1), wants_grad, *_size(inputs, plan))
    if home in _broken:
        return None
    try:
        if place not in _chosen:
            with on_device(queries):
                verdict = _is_faster(inputs, plan, fused, fused_plan, wants_grad)
            if verdict is None:
                return None
            _chosen[place] = verdict
        return fused(inputs, fused_plan) if _chosen[place] else None
    except _OUT_OF_MEMORY:
        return None  # the chunked implementation may still fit: the trial holds the results of both
    except Exception as error:
        # Compilers and drivers raise errors of many kinds, and no training should end by one.
        logger.warning(f"TRIME: the Triton kernels do not run here, so they are not used: {error}")
        _broken.add(home)
        return None


def _size(inputs: Inputs, plan: Plan) -> Tuple[int, ...]:
    """Queries and keys of a part, and parts, to a factor of two: as far as kernels are the same."""
    parts = plan.visibility.repeats
    sizes = (inputs.queries.size(0) // parts, inputs.keys.size(0) // parts, parts)
    return tuple((size - 1).bit_length() for size in sizes)


def _is_faster(
    inputs: Inputs, plan: Plan, fused: Compute, fused_plan: Plan, wants_grad: bool
) -> Optional[bool]:
    """None if this problem cannot tell, because its results are not finite."""
    results, milliseconds = _time(inputs, fused_plan, fused, wants_grad)
    expected, milliseconds_chunked = _time(inputs, plan, chunked_lse, wants_grad)
    if any((result.isnan() | result.isposinf()).any() for result in expected):
        return None
    difference = max(_difference(*pair) for pair in zip(results, expected))
    tolerance = 1e-3 if inputs.queries.dtype == torch.float32 else 3e-2
    if not difference <= tolerance:
        logger.warning(
            f"TRIME: the Triton kernels differ by {difference:.1g} from the chunked implementation on this "
            "device, so they are not used; please report it"
        )
        return False
    faster = milliseconds_chunked > _WORTHWHILE * milliseconds
    logger.info(
        f"TRIME: memory of {inputs.keys.size(0):,} keys for {inputs.queries.size(0):,} queries, "
        f"{inputs.queries.dtype}: Triton {milliseconds:.2f} ms, chunked {milliseconds_chunked:.2f} ms; "
        f"{'Triton' if faster else 'chunked'} is used"
    )
    return faster


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
    return torch.cuda.Event(enable_timing=True)


def _difference(first: Tensor, second: Tensor) -> float:
    """The largest, relative to the largest finite number; NaN or inf if they disagree about -inf."""
    first, second = first.float(), second.float()
    if not torch.equal(first.isinf(), second.isinf()):
        return math.inf
    first, second = (tensor.masked_fill(tensor.isinf(), 0.0) for tensor in (first, second))
    if not first.numel():
        return 0.0
    return ((first - second).abs().max() / second.abs().max().clamp_min(1e-6)).item()
