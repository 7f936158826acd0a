"""Registers everything with fairseq, which imports this folder of a ``--user-dir`` by itself."""

from .. import criterions, models
from . import trime_language_modeling

__all__ = ["criterions", "models", "trime_language_modeling"]
