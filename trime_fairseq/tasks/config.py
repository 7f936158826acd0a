"""The flags of ``--task trime_language_modeling``: evaluation, and the order of training batches."""

from dataclasses import dataclass

from ..data.order import OrderConfig
from ..evaluation.config import EvaluationConfig


@dataclass
class TrimeLanguageModelingConfig(EvaluationConfig, OrderConfig):
    pass
