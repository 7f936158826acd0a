"""Settings in checkpoints of older fairseqs, as today's fairseq can read them."""

import argparse
from collections.abc import Iterator
from dataclasses import MISSING, Field
from dataclasses import fields as dataclass_fields
from typing import Any, Union, get_args, get_origin

from fairseq.dataclass.configs import FairseqConfig
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY


def readable(args: argparse.Namespace) -> dict[str, Any]:
    """Values to use instead of some in ``args``, by name.

    fairseq composes the settings of old checkpoints from the dataclasses of today. It cannot take None for
    what must be a number; and a truth value that is missing, but stands in another group, becomes true.
    """
    values: dict[str, Any] = {}
    for field in _fields(args):
        default = _default(field)
        refers = isinstance(default, str) and default.startswith("${")
        if not hasattr(args, field.name):
            if refers and field.type is bool:
                values[field.name] = _resolved(str(default))
        elif getattr(args, field.name) is None and not _takes_none(field.type) and not refers:
            if default is not None and default is not MISSING:
                values[field.name] = default
    return values


def _fields(args: argparse.Namespace) -> Iterator[Field[Any]]:
    """The fields of the groups that fairseq composes: its own, and those of task, criterion, model, ..."""
    configs: list[Any] = [field.type for field in dataclass_fields(FairseqConfig)]
    configs.append(TASK_DATACLASS_REGISTRY.get(getattr(args, "task", None)))
    for name, registry in REGISTRIES.items():
        configs.append(registry["dataclass_registry"].get(getattr(args, name, None)))
    model = ARCH_MODEL_REGISTRY.get(getattr(args, "arch", None))
    configs.append(getattr(model, "__dataclass", None))
    for config in configs:
        if hasattr(config, "__dataclass_fields__"):
            yield from (field for field in dataclass_fields(config) if not field.name.startswith("_"))


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _takes_none(kind: Any) -> bool:
    return kind is Any or (get_origin(kind) is Union and type(None) in get_args(kind))


def _resolved(reference: str) -> bool:
    """The default of what ``${group.name}`` refers to."""
    group, _, name = reference.strip("${}").partition(".")
    config = FairseqConfig.__dataclass_fields__.get(group)
    return bool(getattr(config.type, name, False)) if config else False
