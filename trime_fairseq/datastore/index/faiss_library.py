"""Faiss, an optional dependency that is imported when it is first needed."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from ..datastore import DatastoreError


def import_faiss() -> ModuleType:
    """Faiss.

    Raises:
        DatastoreError: if it is not installed.
    """
    # PyTorch and Faiss each bring an OpenMP runtime, whose waiting threads spin against the other's
    # working ones. Only a runtime that is loaded after this setting obeys it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import faiss
    except ImportError as error:
        raise DatastoreError(
            "Faiss is not installed: pip install faiss-cpu, or faiss-gpu for indexes that are built or "
            f"searched on a GPU ({error})"
        ) from error
    return faiss


def faiss_error(error: Exception) -> str:
    """The part of an error of Faiss that is not about its source code."""
    return str(error).rsplit("Error: ", 1)[-1].rsplit(": ", 1)[-1].strip()


@contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """Context in which this process gets at most ``size`` more bytes of memory; beyond, MemoryError.

    Faiss takes the sizes that stand in a file at their word. Without this a damaged one would fill the
    machine. It does nothing where Linux's /proc is missing.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            there = int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        yield
        return
    limits = [limit for limit in (there + size, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
