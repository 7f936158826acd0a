"""Order of samples: text order with a context window for evaluation."""

from .context_window import ContextWindowDataset
from .text_order import consecutive_batches, contiguous_shard, keep_short_enough

__all__ = [
    "ContextWindowDataset",
    "consecutive_batches",
    "contiguous_shard",
    "keep_short_enough",
]
