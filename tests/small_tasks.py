"""Tasks on small texts, set up as fairseq sets them up."""

from trime_fairseq.tasks.config import TrimeLanguageModelingConfig
from trime_fairseq.tasks.trime_language_modeling import TrimeLanguageModelingTask


def make_task(data, **settings):
    """On the folder ``data``; settings are fields of the task's config."""
    values = dict(
        tokens_per_sample=16,
        seed=1,
        dataset_impl=None,
        batch_size=None,
        batch_size_valid=None,
        use_plasma_view=False,
        plasma_path="",
        context_window=0,
        gen_subset="test",
        train_subset="train",
        distributed_world_size=1,
        max_tokens=64,
        path=None,
        fp16=False,
        post_process=None,
    )
    config = TrimeLanguageModelingConfig(data=str(data), **{**values, **settings})
    return TrimeLanguageModelingTask.setup_task(config)
