"""Criterion names found in published checkpoints that this version evaluates but does not train with.

fairseq looks the criterion of a checkpoint up when it reads the checkpoint, so the names must exist.
"""

from typing import Any

from fairseq.criterions import register_criterion

from .trime_criterion import TrimeCriterion, TrimeCriterionConfig


def _name_only(name: str, class_name: str) -> type:
    def build_criterion(cls: type, cfg: TrimeCriterionConfig, task: Any) -> Any:
        raise ValueError(
            f"--criterion {name}: this version evaluates checkpoints trained with it, but trains "
            "with --criterion trime_loss only"
        )

    members = {
        "build_criterion": classmethod(build_criterion),
        "__doc__": f"``{name}``, by name only.",
    }
    registered: type = register_criterion(name, dataclass=TrimeCriterionConfig)(
        type(class_name, (TrimeCriterion,), members)
    )
    return registered


TrimeLongLoss = _name_only("trime_long_loss", "TrimeLongLoss")
TrimeLongLossSameDevice = _name_only("trime_long_loss_same_device", "TrimeLongLossSameDevice")
TrimeExtLoss = _name_only("trime_ext_loss", "TrimeExtLoss")
