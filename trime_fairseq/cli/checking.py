"""Everything that could stop a pass of model and search, tried without running the model."""

import logging
from collections.abc import Sequence

from ..evaluation import MemoryConfig, MemoryScorer, ScorerParts, run_eval_lm
from ..evaluation.axes import MemoryAxes
from ..tasks.trime_language_modeling import TrimeLanguageModelingTask
from ..tuning import flags_of, recording_config


class _ReadyError(Exception):
    """The next step would be to run the model."""


class _CheckingTask(TrimeLanguageModelingTask):
    """Ends when checkpoint, data, datastore and index are open and agree with each other and the flags."""

    def build_scorer(self, config: MemoryConfig, pad: int, parts: ScorerParts) -> MemoryScorer:
        raise _ReadyError


def check(arguments: Sequence[str], families: Sequence[MemoryConfig], axes: MemoryAxes) -> None:
    """Raises the error with which :func:`trime_fairseq.cli.recording.record` would stop, if any.

    Arguments as there. It takes the time to load the checkpoint and the index.
    """
    disabled = logging.root.manager.disable
    # What it says now, the pass will say.
    logging.disable(logging.WARNING)
    try:
        run_eval_lm([*arguments, *flags_of(recording_config(families, axes))], _CheckingTask)
    except _ReadyError:
        pass
    finally:
        logging.disable(disabled)
