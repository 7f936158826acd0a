"""The flags of ``--task trime_language_modeling``: evaluation, and the order of training batches."""

from dataclasses import dataclass, fields
from typing import Any

from ..data.order_config import OrderConfig
from ..evaluation.config import EvaluationConfig, MemoryConfig
from ..evaluation.datastore_config import DatastoreConfig
from ..models.config import KeyConfig


@dataclass
class TrimeLanguageModelingConfig(EvaluationConfig, OrderConfig):
    pass


def passing_flags() -> dict[str, Any]:
    """Defaults of the flags that say what a single command does: memories, datastore, files that it writes,
    how it shares its data. Published checkpoints hold values of some, which no training has used."""
    flags: dict[str, Any] = {"eval_file": None, "output_segments_to_file": None, "use_plasma_view": False}
    for config in (MemoryConfig, DatastoreConfig):
        flags.update({field.name: field.default for field in fields(config)})
    for field in fields(KeyConfig):
        del flags[field.name]
    return flags
