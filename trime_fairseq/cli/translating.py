"""Translation in process, for tuning: references recorded once, settings decoded."""

from collections.abc import Sequence
from typing import Any

from ..generation import ModelMemory, TranslationMemoryConfig
from ..generation.generate import quiet_loggers, run_generate
from ..tasks.trime_translation import TrimeTranslationTask
from ..tuning import flags_of
from ..tuning.translation import Quality, ReferenceRecord, ReferenceRecorder, Setting


def record_references(
    arguments: Sequence[str], family: TranslationMemoryConfig, k: int, subset: str = "valid"
) -> ReferenceRecord:
    """One pass of model and search over a text with references.

    Args:
        arguments: of ``fairseq-generate``: DATA, ``--path``, flags of text and batches, but none of the
            memory.
        family: the flags of the memory.
        k: number of neighbours to keep.
        subset: of DATA.

    Raises:
        ValueError: for input that cannot be evaluated.
        OSError: for a file that is not there.
    """
    made: list[ReferenceRecorder] = []

    class RecordingTask(TrimeTranslationTask):
        def build_generator(self, models: Any, args: Any, *others: Any, **named: Any) -> Any:
            super().build_generator(models, args, *others, **named)
            memory = ModelMemory.of(models[0])
            assert memory is not None
            memory.detach()
            sentences = len(self.dataset(subset))
            made.append(ReferenceRecorder(memory.retriever, self.target_dictionary, sentences))
            return made[-1]

    # Any form will do: the neighbours are the same.
    config = Setting("trime", k, family.knn_temperature_value).config(family)
    run_generate([*arguments, "--gen-subset", subset, *flags_of(config)], RecordingTask, quiet=True)
    return made[0].record()


def decode(arguments: Sequence[str], family: TranslationMemoryConfig, setting: Setting | None) -> Quality:
    """Translates a text, with ``--scoring sacrebleu`` among the arguments.

    Args:
        setting: of the memory; None for the model alone.
    """
    from sacrebleu import corpus_bleu

    memory = flags_of(setting.config(family)) if setting is not None else []
    with quiet_loggers("trime_fairseq"):
        found = run_generate([*arguments, *memory], quiet=True)
    # fairseq has tokenised both.
    score = corpus_bleu(found.scorer.pred, [found.scorer.ref], tokenize="none", force=True)
    return Quality(score.score, score.sys_len / max(score.ref_len, 1), found.sentences / found.seconds)
