"""Where the time of an evaluation goes."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class StageTimes:
    """Seconds per stage. On an accelerator they are measured on its own clock, without waiting for it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._pending: deque[tuple[str, Any, Any]] = deque()

    @contextmanager
    def stage(self, name: str, device: torch.device) -> Iterator[None]:
        """Adds the time of the ``with`` block to the stage ``name``."""
        if device.type == "cuda":
            begin, end = _event(), _event()
            begin.record()
            yield
            end.record()
            self._pending.append((name, begin, end))
            self._collect(wait=False)
        else:
            started = time.perf_counter()
            yield
            self._add(name, time.perf_counter() - started)

    def seconds(self) -> dict[str, float]:
        """Sums so far."""
        self._collect(wait=True)
        return dict(self._seconds)

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def _collect(self, wait: bool) -> None:
        while self._pending and (wait or self._pending[0][2].query()):
            name, begin, end = self._pending.popleft()
            if wait:
                end.synchronize()
            self._add(name, begin.elapsed_time(end) / 1000)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)
