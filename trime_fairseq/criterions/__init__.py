"""Criterions that train with memories of the same batch."""

from . import published_names, trime_loss

__all__ = ["published_names", "trime_loss"]
