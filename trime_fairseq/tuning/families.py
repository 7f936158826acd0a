"""Families of settings: which memories and which mode, with everything else to be tuned.

A family is a :class:`MemoryConfig` of which only some fields are read:

===========================================  ====================================================
``mode``, ``knnlm``, ``use_interp``          how distributions mix
``use_local``, ``use_long``, ``use_external``  which memories there are
``mem_size``, ``k``                          the most tokens and neighbours
``lmbda``, ``cache_lmbda``                   None: the weight is solved for; a number stays
``exact_tails``, ``knn_keytype``, ``memory_impl``  as for an evaluation
===========================================  ====================================================

Temperatures are not read: a record is made for all temperatures of its axes.
"""

from collections.abc import Sequence

from ..evaluation.config import MemoryConfig
from .axes import MemoryAxes


def recording_config(families: Sequence[MemoryConfig]) -> MemoryConfig:
    """The one setting whose evaluation sees all memories that some family needs.

    It is a joint softmax over their union, with the largest sizes, and valid by itself. Its own loss is not
    used.

    Raises:
        ValueError: if families differ in ``knn_keytype``, ``memory_impl`` or in whether the tails of an adaptive
            softmax are charged (pass ``exact_tails`` to all).
    """
    raise NotImplementedError


def default_axes(families: Sequence[MemoryConfig]) -> MemoryAxes:
    """Wide axes for families: geometric temperatures; 0 and powers of two up to the largest ``mem_size`` and each
    ``mem_size`` itself; the same of ``k``. Empty where no family needs an axis."""
    raise NotImplementedError


def axes_of(configs: Sequence[MemoryConfig]) -> MemoryAxes:
    """Just the values of settings, to record another text for them."""
    raise NotImplementedError


def flags_of(config: MemoryConfig) -> list[str]:
    """The arguments of ``fairseq-eval-lm`` that set the memories as ``config`` does; defaults are left out."""
    raise NotImplementedError
