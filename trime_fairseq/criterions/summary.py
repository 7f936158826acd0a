"""One line at the end of a training: what the memory was worth."""

import logging
import sys
from collections.abc import Mapping
from multiprocessing.util import Finalize
from typing import Any

from ..distributed import rank

logger = logging.getLogger(__name__)

_NAMES = ("ori_loss", "norm_loss", "mem_mass")


class TrainingSummary:
    """Loss with and without memory: of the last validation, or of the last epoch where nothing was validated.

    It is logged when the process ends, as fairseq tells no task that a training does: after the last update
    or Ctrl-C, on the first device only. An error has the last word.

    The numbers are those that fairseq has logged, as numbers of all devices: no device is waited for.

    Args:
        sees_later_tokens: whether the memory holds tokens that come later in the text.
    """

    def __init__(self, sees_later_tokens: bool = False) -> None:
        self._sees_later_tokens = sees_later_tokens
        self._validation, self._epoch = _Sums(), _Sums()
        self._will_be_logged = False

    def begin_epoch(self) -> None:
        """A training epoch begins."""
        self._epoch = _Sums()
        if rank() == 0 and not self._will_be_logged:
            # atexit does not run in the processes that fairseq starts, one for each device.
            Finalize(None, self._log, exitpriority=1)
            self._will_be_logged = True

    def add_update(self, meters: Mapping[str, Any]) -> None:
        """Adds what fairseq has logged of an update."""
        self._epoch.add(meters)

    def begin_validation(self) -> None:
        """A validation begins."""
        self._validation = _Sums()

    def add_validation(self, meters: Mapping[str, Any]) -> None:
        """Adds what fairseq has logged of a whole validation subset. Of several the first counts, which is
        that of ``checkpoint_best.pt``."""
        if not self._validation.tokens:
            self._validation.add(meters)

    def text(self) -> str | None:
        """The line; None where no batch with memory was seen."""
        of, sums = "validation", self._validation
        if not sums.tokens:
            of, sums = "epoch of training", self._epoch
        if not sums.tokens:
            return None
        plain, memory, mass = (sums.values[name] / sums.tokens for name in _NAMES)
        later = "; tokens saw later ones, which is no language model: evaluate with fairseq-eval-lm"
        return (
            f"TRIME: last {of}: {_text(plain)} without memories, {_text(memory)} with those of training: "
            f"a gain of {plain - memory:.3f} bits; they hold {mass:.2f} of the distribution"
            f"{later if self._sees_later_tokens else ''}"
        )

    def _log(self) -> None:
        # A training that failed ends with its error.
        failed = isinstance(getattr(sys, "last_value", None), Exception)
        line = None if failed else self.text()
        if line is not None:
            # A program that runs fairseq in its own process may have closed the stream of its log.
            reports_errors, logging.raiseExceptions = logging.raiseExceptions, False
            logger.info(line)
            logging.raiseExceptions = reports_errors


class _Sums:
    """Sums over tokens, losses in bits; of batches with memory, so of none in a warm-up."""

    def __init__(self) -> None:
        self.tokens = 0.0
        self.values = dict.fromkeys(_NAMES, 0.0)

    def add(self, meters: Mapping[str, Any]) -> None:
        if "norm_loss" in meters:
            self.tokens += meters["norm_loss"].count
            for name in _NAMES:
                self.values[name] += meters[name].sum


def _text(bits: float) -> str:
    """A loss in bits per token."""
    perplexity = "inf" if bits > 1000 else f"{2.0**bits:.2f}"
    return f"loss {bits:.3f} (perplexity {perplexity})"
