"""``--train-softmax-temp``: the temperature of the similarities in training, fixed or learnt."""

import math

import torch
from torch import Tensor, nn

from ..memory import similarity_scale

LEARNT = "learnt"


class TrainingTemperature(nn.Module):
    """tau, by which similarities are divided (:func:`trime_fairseq.memory.similarity_scale`).

    A learnt one is a parameter of the criterion: its logarithm, from 0 (tau 1) on. fairseq optimises it with
    the parameters of the model, and writes it into checkpoints.

    Args:
        setting: a positive number, or ``learnt``.

    Raises:
        ValueError: for anything else.
    """

    def __init__(self, setting: str) -> None:
        super().__init__()
        self.logarithm: nn.Parameter | None = None
        self._fixed = 1.0
        if setting == LEARNT:
            self.logarithm = nn.Parameter(torch.zeros(()))
            return
        try:
            self._fixed = float(setting)
        except ValueError:
            self._fixed = math.nan
        if not 0.0 < self._fixed < math.inf:
            raise ValueError(f"--train-softmax-temp takes a positive number or '{LEARNT}', not {setting!r}")

    @property
    def is_published(self) -> bool:
        """Whether it is 1 for good, as in the published code."""
        return self.logarithm is None and self._fixed == 1.0

    @property
    def value(self) -> float:
        """tau as it is now; waits for the device of a learnt one."""
        return self._fixed if self.logarithm is None else math.exp(self.logarithm.item())

    def scaled(self, queries: Tensor) -> tuple[Tensor, float]:
        """Queries [N, d] and the factor of their inner products with keys; the gradient of a learnt tau goes
        through the queries."""
        dimension = queries.size(1)
        if self.logarithm is None:
            return queries, similarity_scale(dimension, self._fixed)
        return queries * self.logarithm.neg().exp(), similarity_scale(dimension)
