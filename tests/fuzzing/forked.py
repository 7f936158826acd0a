"""Runs a function in a forked process, with bounds of time and memory."""

import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# What a process may take beyond what it has when it is forked, and how long it may take.
BYTES, SECONDS = 2 * 1024**3, 60


@dataclass(frozen=True)
class Outcome:
    """What became of a call: a value, an error of one of the kinds that are meant for users, or a fault.

    Attributes:
        value: as JSON gives it back; None after an error.
        error: its message.
        fault: a crash, a hang, an exception that is none of the package's, too much memory.
    """

    value: Any = None
    error: str | None = None
    fault: str | None = None


def call(function: Callable[[], Any]) -> Outcome:
    """The outcome of ``function()``, whose value must be JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _answer(function, writing)
    os.close(writing)
    ended, _, _ = select.select([reading], [], [], SECONDS)
    if not ended:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if not ended:
        return Outcome(fault=f"no end after {SECONDS} s")
    if usage.ru_maxrss * 1024 > BYTES + _resident():
        return Outcome(fault=f"took {usage.ru_maxrss / 1024**2:.1f} GB")
    if not answer:
        return Outcome(fault=f"died: status {status}")
    return Outcome(**json.loads(answer))


def _answer(function: Callable[[], Any], pipe: int) -> None:
    """In the child; does not return."""
    try:
        soft = _data() + BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (soft, soft))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        try:
            answer = {"value": function()}
        except (ValueError, OSError) as error:
            answer = {"error": str(error)}
        except SystemExit as error:
            answer = {"fault": f"SystemExit: {error}"}
        except BaseException:
            answer = {"fault": traceback.format_exc(limit=-4)}
        with os.fdopen(pipe, "wb") as file:
            file.write(json.dumps(answer).encode())
    finally:
        sys.stdout = sys.stderr = None  # nothing of the parent's is written twice
        os._exit(0)


def _data() -> int:
    return _status("VmData")


def _resident() -> int:
    return _status("VmRSS")


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:"))
