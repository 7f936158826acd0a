"""The flags of ``--task trime_language_modeling``: evaluation, and the order of training batches."""

from dataclasses import dataclass, fields
from typing import Any

from ..data.order_config import OrderConfig
from ..evaluation.config import EvaluationConfig, MemoryConfig
from ..evaluation.datastore_config import DatastoreConfig
from ..generation.config import TranslationMemoryConfig
from ..models.config import KeyConfig


@dataclass
class TrimeLanguageModelingConfig(EvaluationConfig, OrderConfig):
    pass


def passing_flags(task: str) -> dict[str, Any]:
    """Defaults of the flags that say what a single command does: memories, datastore, files that it writes,
    how it shares its data. Published checkpoints hold values of some, which no training has used.

    Args:
        task: the name in the settings of a checkpoint.
    """
    flags: dict[str, Any] = {"output_segments_to_file": None}
    if task in ("translation", "trime_translation"):
        return {**flags, **_defaults(TranslationMemoryConfig)}
    keys = {field.name for field in fields(KeyConfig)}
    flags.update({"eval_file": None, "use_plasma_view": False})
    flags.update({**_defaults(MemoryConfig), **_defaults(DatastoreConfig)})
    return {name: value for name, value in flags.items() if name not in keys}


def _defaults(config: type[Any]) -> dict[str, Any]:
    """Without what only repeats a value of another group, and without fairseq's name of the task."""
    flags = {field.name: field.default for field in fields(config) if field.name != "_name"}
    return {name: default for name, default in flags.items() if not str(default).startswith("${")}
