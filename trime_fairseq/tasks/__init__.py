"""Registers everything with fairseq, which imports this folder of a ``--user-dir`` by itself."""

from .. import criterions, models
from ..data.removed_names import restore_removed_names
from ..distributed import limit_waiting
from ..evaluation.quiet import ignore_warnings
from ..flags.errors import report_in_one_line, runs_fairseq
from ..models.guard import guard_checkpoints
from . import trime_language_modeling, trime_translation
from .config import passing_flags

ignore_warnings()
guard_checkpoints(passing_flags)
restore_removed_names()
report_in_one_line()
if runs_fairseq():
    limit_waiting()

__all__ = ["criterions", "models", "trime_language_modeling", "trime_translation"]
