"""Tuning from a record: one pass of model and search, then any setting is arithmetic.

::

    families = [MemoryConfig(use_local=True, exact_tails=True), MemoryConfig(use_local=True, mode="li", ...)]
    axes = default_axes(families)
    record, _ = trime_fairseq.cli.recording.record(arguments, families, axes)
    best = tune(record, families[0]).best       # .config, .loss, .ppl
    log_prob = mixture(record, best.config).log_prob
"""

from ..evaluation.axes import MemoryAxes
from .families import check_families, default_axes, effective_values, flags_of, recording_config
from .record import Record, memories_of, mixture, without_memory
from .recording_scorer import RecordingScorer
from .request import Request, read_request
from .search import Setting, Tuned, tune
from .weights import solve_weights

__all__ = [
    "MemoryAxes",
    "Record",
    "RecordingScorer",
    "Request",
    "Setting",
    "Tuned",
    "check_families",
    "default_axes",
    "effective_values",
    "flags_of",
    "memories_of",
    "mixture",
    "read_request",
    "recording_config",
    "solve_weights",
    "tune",
    "without_memory",
]
