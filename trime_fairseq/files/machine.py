"""Memory and cores of this machine, as far as this process may use them."""

import os
from contextlib import suppress

# Where a container says how much memory it has.
_CONTAINER = "/sys/fs/cgroup/memory.max"


def memory_size() -> int:
    """Bytes of memory: of the machine, or of its container if that has less."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError), open(_CONTAINER, encoding="ascii") as file:
        there = min(there, int(file.read()))
    return there


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
