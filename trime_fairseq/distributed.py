"""This process among those of ``torch.distributed``."""

import torch.distributed as dist


def is_distributed() -> bool:
    """Whether a process group was initialised, of one process or of several."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process in the group; 0 without one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes in the group; 1 without one."""
    return dist.get_world_size() if is_distributed() else 1
