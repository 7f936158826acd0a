"""The flags of ``--task trime_translation``: memories in generation, and the order of training batches."""

from dataclasses import dataclass

from fairseq.tasks.translation import TranslationConfig

from ..data.order_config import PredefinedOrderConfig
from ..generation.config import TranslationMemoryConfig


@dataclass
class TrimeTranslationConfig(TranslationConfig, TranslationMemoryConfig, PredefinedOrderConfig):
    pass
