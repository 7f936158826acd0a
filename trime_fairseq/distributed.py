"""This process among those of ``torch.distributed``."""

import functools
import os
import sys
import threading
from typing import Any

import torch.distributed as dist

# Seconds that a process waits for the others before they are a group, and the variable that says otherwise.
GROUP_TIMEOUT = "TRIME_GROUP_TIMEOUT"
_SECONDS = 600.0


def is_distributed() -> bool:
    """Whether a process group was initialised, of one process or of several."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process in the group; 0 without one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes in the group; 1 without one."""
    return dist.get_world_size() if is_distributed() else 1


def limit_waiting() -> None:
    """From now on a process that waits longer than ``TRIME_GROUP_TIMEOUT`` seconds (600) for the others to
    form a group ends, with exit status 1 and a line that says so. PyTorch alone waits half an hour.

    It replaces ``torch.distributed.init_process_group``, and is for the commands of which this package is a
    plug-in. What a formed group waits for stays as it is.

    Raises:
        ValueError: if the variable is no positive number.
    """
    seconds = _limit()
    if not dist.is_available() or hasattr(dist.init_process_group, "is_of_trime"):
        return
    stock = dist.init_process_group

    @functools.wraps(stock)
    def limited(*args: Any, **options: Any) -> Any:
        timer = threading.Timer(seconds, _give_up, [seconds, options])
        timer.daemon = True
        timer.start()
        try:
            return stock(*args, **options)
        finally:
            timer.cancel()

    limited.is_of_trime = True  # type: ignore[attr-defined]
    dist.init_process_group = limited


def _limit() -> float:
    text = os.environ.get(GROUP_TIMEOUT, "")
    try:
        seconds = float(text or _SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ValueError(f"{GROUP_TIMEOUT} is a positive number of seconds, not {text!r}")
    return seconds


def _give_up(seconds: float, options: dict[str, Any]) -> None:
    """Ends the process. It waits inside of PyTorch, where no exception reaches it."""
    who = f"rank {options.get('rank')} of {options.get('world_size')} at {options.get('init_method')}"
    sys.stdout.flush()
    sys.stderr.write(
        f"TRIME: error: {who} waited {seconds:g} s for the other processes to form a group: one has ended "
        f"or never began; see its output ({GROUP_TIMEOUT}=SECONDS waits longer)\n"
    )
    sys.stderr.flush()
    os._exit(1)
