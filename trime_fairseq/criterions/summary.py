"""One line at the end of a training: what the memory was worth."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fairseq import utils

from ..distributed import rank

logger = logging.getLogger(__name__)

_SUMMED = ("ori_loss", "norm_loss", "mem_mass", "ntokens")


class TrainingSummary:
    """Loss with and without memory, of the last validation, or of the last epoch where nothing was validated.

    Args:
        sees_later_tokens: whether the memory of the criterion holds tokens that come later in the text.
    """

    def __init__(self, sees_later_tokens: bool = False) -> None:
        self._sees_later_tokens = sees_later_tokens
        self._sums: dict[str, dict[str, float]] = {}
        self._logged = False

    def begin(self, which: str) -> None:
        """Forgets what was added to ``which``, which is ``validation`` or ``training``."""
        self._sums.pop(which, None)

    def add(self, which: str, logging_outputs: Sequence[Mapping[str, Any]]) -> None:
        """Adds the logs of some batches; those of a warm-up have no loss with memory and do not count."""
        for log in logging_outputs:
            if "norm_loss" not in log:
                continue
            sums = self._sums.setdefault(which, dict.fromkeys(_SUMMED, 0.0))
            for name in _SUMMED:
                sums[name] += float(utils.item(log[name]))

    def text(self) -> str | None:
        """The line; None where no batch with memory was seen."""
        which = next((name for name in ("validation", "training") if name in self._sums), None)
        if which is None or not self._sums[which]["ntokens"]:
            return None
        sums = self._sums[which]
        plain, memory = (sums[name] / sums["ntokens"] for name in ("ori_loss", "norm_loss"))
        caveat = (
            "; with memory it is no language model's, as tokens see later segments: evaluate with "
            "fairseq-eval-lm"
            if self._sees_later_tokens
            else ""
        )
        mass = sums["mem_mass"] / sums["ntokens"]
        return (
            f"TRIME: {which} perplexity {_perplexity(plain)} without memory, {_perplexity(memory)} with that "
            f"of training (gain {plain - memory:.3f} nats per token, mass on memories {mass:.2f}){caveat}"
        )

    def log(self) -> None:
        """Logs it once, on the first device."""
        line = self.text()
        if line is not None and rank() == 0 and not self._logged:
            logger.info(line)
            self._logged = True


def _perplexity(nats: float) -> str:
    return f"{math.exp(nats):.2f}" if nats < 700 else "inf"
