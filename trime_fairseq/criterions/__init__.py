"""Criterions that train with memories of the same batches."""

from . import trime_ext_loss, trime_long_loss, trime_loss

__all__ = ["trime_ext_loss", "trime_long_loss", "trime_loss"]
