"""Order of samples: text order, similarity or any other, and a context window for evaluation."""

from .batch_plan import PlannedBatches, deal_out
from .binarised import text_files_hash
from .context_window import ContextWindowDataset
from .host_targets import HostTargets
from .predefined import read_predefined
from .segments import export_segments
from .text_order import consecutive_batches, contiguous_shard, keep_short_enough
from .training_order import TrainingOrder, planned_iterator

__all__ = [
    "ContextWindowDataset",
    "HostTargets",
    "PlannedBatches",
    "TrainingOrder",
    "consecutive_batches",
    "contiguous_shard",
    "deal_out",
    "export_segments",
    "keep_short_enough",
    "planned_iterator",
    "read_predefined",
    "text_files_hash",
]
