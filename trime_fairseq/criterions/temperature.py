"""``--train-softmax-temp``: the temperature of the similarities in training, fixed or learnt."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..flags.bounds import TEMPERATURE
from ..memory import similarity_scale

LEARNT = "learnt"


class TrainingTemperature(nn.Module):
    """tau, by which similarities are divided (:func:`trime_fairseq.memory.similarity_scale`).

    A learnt one is a parameter of the criterion: its logarithm, float32 [1], from 0 (tau 1) on. fairseq
    optimises it with the parameters of the model and writes it into checkpoints.

    Args:
        setting: a positive number, or ``learnt``.

    Raises:
        ValueError: for anything else.
    """

    def __init__(self, setting: str) -> None:
        super().__init__()
        self._fixed = 1.0
        self.logarithm: nn.Parameter | None = None
        if setting == LEARNT:
            # Not a scalar: fairseq's legacy_ddp slices gradients.
            self.logarithm = nn.Parameter(torch.zeros(1))
        else:
            self._fixed = _number(setting)
            if not 0.0 < self._fixed < math.inf:
                raise ValueError(
                    f"--train-softmax-temp takes a positive number or '{LEARNT}', not {setting!r}"
                )
            problem = TEMPERATURE.problem(self._fixed)
            if problem:
                raise ValueError(f"--train-softmax-temp {problem}")

    @property
    def is_published(self) -> bool:
        """Whether it is 1 for good, as in the published code."""
        return self.logarithm is None and self._fixed == 1.0

    @property
    def value(self) -> float:
        """tau as it is now; waits for the device of a learnt one."""
        return self._fixed if self.logarithm is None else math.exp(self.logarithm.item())

    def learnt(self) -> Tensor | None:
        """A learnt tau as it is now, [], without waiting for its device; None where it is fixed."""
        return None if self.logarithm is None else self.logarithm.detach().exp().squeeze(0)

    def continue_from(self, tau: float) -> None:
        """Sets a learnt one; a fixed one stays as it is."""
        if self.logarithm is not None:
            self.logarithm.data.fill_(math.log(tau))

    def scaled(self, queries: Tensor) -> tuple[Tensor, float]:
        """Queries [N, d] and the factor of their inner products with keys; the gradient of a learnt tau goes
        through the queries."""
        dimension = queries.size(1)
        if self.logarithm is None:
            return queries, similarity_scale(dimension, self._fixed)
        # In float32: tau's gradient is a sum over all tokens, which float16 cannot hold.
        return (queries * self.logarithm.neg().exp()).to(queries.dtype), similarity_scale(dimension)

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> "TrainingTemperature":
        """As of any module, but --fp16 and --bf16 leave the logarithm in float32."""

        def at_least_single(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            return moved.to(torch.promote_types(moved.dtype, torch.float32))

        return super()._apply(at_least_single, *args, **kwargs)


def is_temperature(value: Any) -> bool:
    """Whether it is a positive finite number, of a size that float32 can divide by."""
    return isinstance(value, float) and TEMPERATURE.problem(value) is None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
