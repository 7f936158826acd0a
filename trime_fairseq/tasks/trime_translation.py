"""``--task trime_translation``: the order of training sentences, and memories in generation."""

from typing import Any

from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask

from ..evaluation.config import part_of
from ..generation import TranslationMemoryConfig, attach_memories
from .checks import is_command
from .translation_config import TrimeTranslationConfig


@register_task("trime_translation", dataclass=TrimeTranslationConfig)
class TrimeTranslationTask(TranslationTask):
    """Translation: what ``fairseq-train``, ``fairseq-generate`` and ``fairseq-interactive`` ask of a task."""

    def __init__(self, cfg: Any, src_dict: Any, tgt_dict: Any) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self.config = part_of(cfg, TranslationMemoryConfig)
        self.epoch = 1
        self.update_num = 0

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> "TrimeTranslationTask":
        config = part_of(cfg, TranslationMemoryConfig)
        config.check()
        if is_command("train"):
            config.refuse_memory(
                "of fairseq-generate and fairseq-interactive; a model in training has no datastore"
            )
        task: TrimeTranslationTask = super().setup_task(cfg, **kwargs)
        return task

    def build_generator(
        self,
        models: Any,
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: Any = None,
        prefix_allowed_tokens_fn: Any = None,
    ) -> Any:
        """fairseq's own, of models that search a datastore if the flags ask for it."""
        if self.config.use_knn_datastore:
            scores = getattr(args, "score_reference", False)
            divided_by = 1.0 if scores else float(getattr(args, "temperature", 1.0))
            attach_memories(models, self.config, self.target_dictionary, self.cfg.target_lang, divided_by)
        return super().build_generator(
            models,
            args,
            seq_gen_cls=seq_gen_cls,
            extra_gen_cls_kwargs=extra_gen_cls_kwargs,
            prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
        )
