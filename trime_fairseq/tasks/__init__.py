"""Registers everything with fairseq, which imports this folder of a ``--user-dir`` by itself."""

from .. import criterions, models
from ..evaluation.quiet import ignore_warnings
from . import trime_language_modeling

ignore_warnings()

__all__ = ["criterions", "models", "trime_language_modeling"]
