"""One pass of model and search over a text, for all settings of several families."""

from collections.abc import Sequence

from ..evaluation import EvaluationResult, MemoryConfig
from ..tuning import MemoryAxes, Record


def record(
    arguments: Sequence[str], families: Sequence[MemoryConfig], axes: MemoryAxes
) -> tuple[Record, EvaluationResult]:
    """Runs ``fairseq-eval-lm ARGUMENTS`` in this process, with the memories of all families.

    Args:
        arguments: DATA, ``--path``, ``--gen-subset``, flags of text, batches and datastore, but none that
            :class:`MemoryConfig` declares: those come from the families.
        families: see :mod:`trime_fairseq.tuning.families`.
        axes: for which values.

    Returns:
        The record, and the result of the model without memory, with what was measured on the way.

    Raises:
        ValueError: for input that cannot be evaluated.
    """
    raise NotImplementedError
