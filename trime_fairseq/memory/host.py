"""From the host to a device."""

from contextlib import nullcontext
from typing import Any, ContextManager

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without waiting for the device, as a copy of pageable memory may."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def on_device(tensor: Tensor) -> ContextManager[Any]:
    """In which kernels and events are those of the tensor's device; nothing on a CPU."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
