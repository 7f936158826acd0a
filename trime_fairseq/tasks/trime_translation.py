"""``--task trime_translation``: the order of training sentences, and memories in generation."""

from typing import Any

from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask

from .translation_config import TrimeTranslationConfig


@register_task("trime_translation", dataclass=TrimeTranslationConfig)
class TrimeTranslationTask(TranslationTask):
    """Translation: what ``fairseq-train``, ``fairseq-generate`` and ``fairseq-interactive`` ask of a task."""

    def __init__(self, cfg: Any, src_dict: Any, tgt_dict: Any) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self.epoch = 1
        self.update_num = 0
