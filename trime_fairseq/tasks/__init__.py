"""Tasks: what ``--task`` names."""

from . import trime_language_modeling

__all__ = ["trime_language_modeling"]
