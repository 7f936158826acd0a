"""Registers everything with fairseq, which imports this folder of a ``--user-dir`` by itself."""

from .. import criterions, models
from ..distributed import limit_waiting
from ..errors import report_in_one_line, runs_fairseq
from ..evaluation.quiet import ignore_warnings
from . import trime_language_modeling

ignore_warnings()
report_in_one_line()
if runs_fairseq():
    limit_waiting()

__all__ = ["criterions", "models", "trime_language_modeling"]
