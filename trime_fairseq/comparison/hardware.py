"""On what, with which versions and when something was measured."""

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from .. import __version__


def hardware(cpu: bool) -> str:
    """Name of the processor, and how many threads compute; or of the GPU."""
    if torch.cuda.is_available() and not cpu:
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def versions() -> str:
    """Of this package and of what it computes with."""
    found = [f"trime_fairseq {__version__}"]
    for names in (("fairseq", "ve-fairseq"), ("torch",), ("faiss-cpu", "faiss-gpu"), ("numpy",)):
        for name in names:
            try:
                found.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                continue
            break
    return ", ".join([*found, f"Python {platform.python_version()}"])


def today() -> str:
    return datetime.date.today().isoformat()


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()
