"""One pass of model and search over a text, for all settings of several families."""

from collections.abc import Sequence

from ..evaluation import EvaluationResult, MemoryConfig, ScorerParts, run_eval_lm
from ..evaluation.axes import MemoryAxes
from ..tasks.trime_language_modeling import TrimeLanguageModelingTask
from ..tuning import Record, RecordingScorer, flags_of, recording_config


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
    made: list[RecordingScorer] = []

    class RecordingTask(TrimeLanguageModelingTask):
        def build_scorer(self, config: MemoryConfig, pad: int, parts: ScorerParts) -> RecordingScorer:
            made.append(RecordingScorer(axes, config, pad, parts))
            return made[-1]

    result = run_eval_lm([*arguments, *flags_of(recording_config(families, axes))], RecordingTask)
    return made[0].record(), result
