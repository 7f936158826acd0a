"""NaN is no result: where it comes from, and what is done about it before it becomes a loss."""

import math
from typing import Any

import torch
from torch import Tensor

from .config import MemoryConfig

# The score of a probability of 0 for fairseq, which leaves infinities out of its loss: the perplexity that it
# prints becomes infinite. The pieces of a word may be summed in float32.
IMPOSSIBLE = -1e37


class NumberWatch:
    """Looks whether log-probabilities are numbers: of every batch on the CPU; on an accelerator, where that
    takes waiting, of the batches 1, 2, 4, 8 and so on, and of the sums at the end.

    Args:
        config: for the advice.
    """

    def __init__(self, config: MemoryConfig) -> None:
        self._config = config
        self._batches = 0

    def looks(self, device: torch.device) -> bool:
        """Whether to check the next batch."""
        self._batches += 1
        return device.type == "cpu" or self._batches.bit_count() == 1

    def check_model(self, model: Any, log_prob: Tensor) -> None:
        """Raises ValueError, naming the cause, where a log-probability of the model alone is no number."""
        if _all_numbers(log_prob):
            return
        # Weights, too, may be too large for half precision.
        if any(weight.dtype == torch.float16 for weight in model.parameters()):
            raise ValueError(
                "the loss is NaN: numbers of --path overflow in half precision: leave out --fp16 (if it is "
                "NaN then, too, the file is damaged)"
            )
        for name, weight in model.named_parameters():
            if not weight.isfinite().all():
                raise ValueError(f"the loss is NaN: the weights of --path hold NaN or infinity ({name})")
        raise ValueError(_OF_THE_MODEL)

    def check_memories(self, log_prob: Tensor) -> None:
        """Raises ValueError where a log-probability with memories is no number, though the model's is."""
        if not _all_numbers(log_prob):
            raise ValueError(f"the loss is NaN: {self._of_the_memories()}")

    def check_sums(self, nll: float, nll_without_memory: float) -> None:
        """Raises ValueError for sums, with and without memories, that are no numbers."""
        if not _is_number(nll_without_memory):
            raise ValueError(_OF_THE_MODEL)
        if not _is_number(nll):
            raise ValueError(f"the loss is NaN: {self._of_the_memories()}")

    def _of_the_memories(self) -> str:
        if self._config.searches:
            return (
                "similarities to memories overflow, or the keys of --dstore-filename are no numbers: raise "
                "--softmax-temp and --interp-temp, or write the datastore again"
            )
        return "similarities to memories overflow: raise --softmax-temp"


_OF_THE_MODEL = (
    "the loss is NaN: the output of --path is no number on this text (in half precision leave out --fp16; "
    "otherwise its training has diverged, or the file is damaged)"
)


def _all_numbers(log_prob: Tensor) -> bool:
    """Whether all are less than infinity; minus infinity is a number here, the logarithm of 0."""
    return bool((log_prob < math.inf).all())


def _is_number(nll: float) -> bool:
    return nll > -math.inf
