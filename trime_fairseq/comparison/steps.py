"""Progress over the steps of a comparison, in lines that a log keeps."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..tuning.progress import duration

logger = logging.getLogger(__name__)


class Steps:
    """Says which step begins, how many there are, and what time is left.

    Args:
        checkpoints: how many there are.
        kinds: names of the steps of each. Those of a kind take about the same time.
    """

    def __init__(self, checkpoints: int, kinds: tuple[str, ...]) -> None:
        self._total = checkpoints * len(kinds)
        self._left = dict.fromkeys(kinds, checkpoints)
        self._seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        self._number = 0

    @contextmanager
    def step(self, name: str, kind: str) -> Iterator[None]:
        """Around a step."""
        self._number += 1
        left = self._time_left()
        logger.info(f"TRIME: step {self._number} of {self._total}: {name}{left}")
        started = time.monotonic()
        yield
        self._seconds[kind].append(time.monotonic() - started)
        self._left[kind] -= 1

    def skip(self, name: str, *kinds: str) -> None:
        """Steps whose results are there."""
        self._number += len(kinds)
        for kind in kinds:
            self._left[kind] -= 1
        logger.info(f"TRIME: step {self._number} of {self._total}: {name}")

    def _time_left(self) -> str:
        """Of all steps that are left, this one included, if every kind was seen."""
        if not all(self._seconds.values()):
            return ""
        left = sum(self._left[kind] * sum(seen) / len(seen) for kind, seen in self._seconds.items())
        return f", about {duration(left)} left in all"
