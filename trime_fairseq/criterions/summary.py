"""One line at the end of a training: what the memory was worth."""

import logging
from collections.abc import Mapping
from multiprocessing.util import Finalize
from typing import Any

from ..distributed import rank

logger = logging.getLogger(__name__)

_NAMES = ("ori_loss", "norm_loss", "mem_mass")
_VALIDATION, _TRAINING = "validation", "epoch of training"


class TrainingSummary:
    """Loss with and without memory: of the last validation, or of the last epoch where nothing was validated.

    It is logged when the process ends, as fairseq tells no task that a training does: after the last update,
    an error or Ctrl-C, on the first device only.

    Args:
        sees_later_tokens: whether the memory holds tokens that come later in the text.
    """

    def __init__(self, sees_later_tokens: bool = False) -> None:
        self._sees_later_tokens = sees_later_tokens
        # Sums over the tokens of a validation, or of an epoch, and the number of tokens.
        self._sums: dict[str, dict[str, float]] = {}
        self._will_be_logged = False

    def begin_epoch(self) -> None:
        """A training epoch begins: forgets the last one."""
        self._sums.pop(_TRAINING, None)
        if rank() == 0 and not self._will_be_logged:
            # atexit does not run in the processes that fairseq starts, one for each device.
            Finalize(None, self._log, exitpriority=1)
            self._will_be_logged = True

    def begin_validation(self) -> None:
        """A validation begins: forgets the last one."""
        self._sums.pop(_VALIDATION, None)

    def add(self, meters: Mapping[str, Any], training: bool) -> None:
        """Adds some batches.

        Args:
            meters: what fairseq has logged of them, as numbers of all devices: so this waits for none. Those
                of a warm-up have no loss with memory and do not count.
            training: whether they were trained on.
        """
        if "norm_loss" not in meters:
            return
        which = _TRAINING if training else _VALIDATION
        sums = self._sums.setdefault(which, dict.fromkeys((*_NAMES, "tokens"), 0.0))
        for name in _NAMES:
            sums[name] += meters[name].sum
        sums["tokens"] += meters["norm_loss"].count

    def text(self) -> str | None:
        """The line; None where no batch with memory was seen."""
        which = _VALIDATION if _VALIDATION in self._sums else _TRAINING
        if which not in self._sums:
            return None
        sums = self._sums[which]
        plain, memory, mass = (sums[name] / sums["tokens"] for name in _NAMES)
        of_later = "; tokens saw later ones, which is no language model: evaluate with fairseq-eval-lm"
        return (
            f"TRIME: last {which}: {_text(plain)} without memories, {_text(memory)} with those of training: "
            f"a gain of {plain - memory:.3f} bits; they hold {mass:.2f} of the distribution"
            f"{of_later if self._sees_later_tokens else ''}"
        )

    def _log(self) -> None:
        line = self.text()
        if line is not None:
            # A program that runs fairseq in its own process may have closed the stream of its log.
            reports_errors, logging.raiseExceptions = logging.raiseExceptions, False
            logger.info(line)
            logging.raiseExceptions = reports_errors


def _text(bits: float) -> str:
    """A loss in bits per token."""
    perplexity = "inf" if bits > 1000 else f"{2.0**bits:.2f}"
    return f"loss {bits:.3f} (perplexity {perplexity})"
