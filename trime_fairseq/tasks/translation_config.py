"""The flags of ``--task trime_translation``."""

from dataclasses import dataclass

from fairseq.tasks.translation import TranslationConfig

from ..generation.config import TranslationMemoryConfig


@dataclass
class TrimeTranslationConfig(TranslationConfig, TranslationMemoryConfig):
    pass
