"""What is measured: the loss of a model with memories, by ``fairseq-eval-lm`` or :func:`evaluate`."""

# isort: off
from .quiet import import_fairseq

import_fairseq()

# isort: on
from .config import EvaluationConfig, MemoryConfig  # noqa: E402
from .datastore_config import DatastoreConfig  # noqa: E402
from .eval_lm import evaluate, run_eval_lm  # noqa: E402
from .in_process import register  # noqa: E402
from .result import EvaluationResult  # noqa: E402
from .scorer import MemoryScorer, ScorerParts  # noqa: E402

__all__ = [
    "DatastoreConfig",
    "EvaluationConfig",
    "EvaluationResult",
    "MemoryConfig",
    "MemoryScorer",
    "ScorerParts",
    "evaluate",
    "register",
    "run_eval_lm",
]
