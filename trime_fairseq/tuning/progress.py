"""Progress of a pass, for terminals and for logs alike."""

import logging
import time

logger = logging.getLogger(__name__)


class Progress:
    """Logs a line now and then: how far it is, and the time that is left.

    Args:
        total: how many there are; 0 if nobody knows.
        unit: of what.
        every: seconds between two lines.
    """

    def __init__(self, total: int, unit: str, every: float = 15.0) -> None:
        self._total, self._unit, self._every = total, unit, every
        self._done = 0
        self._started = self._said = time.monotonic()

    def add(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        now = time.monotonic()
        if now - self._said < self._every or 0 < self._total <= self._done:
            return
        self._said = now
        if not self._total:
            logger.info(f"TRIME: {self._done:,} {self._unit}")
            return
        left = (now - self._started) * (self._total - self._done) / self._done
        logger.info(
            f"TRIME: {self._done:,} of {self._total:,} {self._unit} ({self._done / self._total:.0%}), "
            f"{duration(left)} left"
        )


def duration(seconds: float) -> str:
    """Such as 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
