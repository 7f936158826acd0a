"""Whether the long-term memory that is asked for has room."""

import logging

import torch

from ..files.machine import memory_size
from .config import EvaluationConfig

logger = logging.getLogger(__name__)


def check_memory_size(config: EvaluationConfig, tokens: int, dimension: int) -> None:
    """Checks ``--mem-size`` against a text and this machine.

    Args:
        config: its flags.
        tokens: of the text, more than which no memory holds.
        dimension: d of the keys.

    Raises:
        ValueError: if the memory cannot be held.
    """
    held = min(config.mem_size, tokens)
    on_gpu = torch.cuda.is_available() and not config.cpu
    # Keys and tokens; the buffer has room for twice what the memory holds.
    needed = 2 * held * (dimension * (2 if config.fp16 else 4) + 8)
    there = torch.cuda.mem_get_info()[1] if on_gpu else memory_size()
    if needed > there:
        raise ValueError(
            f"--mem-size {config.mem_size} needs {needed / 2**30:,.1f} GiB for the keys of {held:,} tokens; "
            f"{'the GPU' if on_gpu else 'this machine'} has {there / 2**30:,.1f} GiB: lower it"
        )
    if config.mem_size > tokens:
        logger.info(f"TRIME: --mem-size {config.mem_size:,} is all of the text, {tokens:,} tokens")
