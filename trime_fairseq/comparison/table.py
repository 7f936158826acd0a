"""The table: means over checkpoints, intervals over samples, differences to the baseline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .bootstrap import Interval, interval, resampled_losses
from .request import Comparison
from .result import CheckpointResult, RowResult

# The results of each model's checkpoints, by the model's name.
Results = Mapping[str, Sequence[CheckpointResult]]


@dataclass(frozen=True)
class Estimate:
    """A value and its interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Row:
    """A row of the table. Where a model has several checkpoints, losses are means over them.

    Attributes:
        model, memory: names.
        of_checkpoints: what was measured of each checkpoint.
        tuned_ppl: perplexity on the tuning subset.
        ppl: on the test subset.
        ppl_of_checkpoints: of each on the test subset.
        change: of the perplexity against the baseline, in percent; None for the baseline.
        change_nats: the same as a difference of losses, in nats per token.
    """

    model: str
    memory: str
    of_checkpoints: tuple[RowResult, ...]
    tuned_ppl: float
    ppl: Estimate
    ppl_of_checkpoints: tuple[float, ...]
    change: Estimate | None
    change_nats: Estimate | None

    @property
    def mass(self) -> float:
        """Share of the distribution that lies on memories."""
        return sum(row.mass for row in self.of_checkpoints) / len(self.of_checkpoints)

    @property
    def shares(self) -> dict[str, float]:
        """Of the target's probability, by memory."""
        names = dict.fromkeys(name for row in self.of_checkpoints for name in row.shares)
        return {
            name: sum(row.shares.get(name, 0.0) for row in self.of_checkpoints) / len(self.of_checkpoints)
            for name in names
        }


def make_table(comparison: Comparison, results: Results) -> list[Row]:
    """The rows, in the order in which models and memories were named.

    Raises:
        ValueError: if rows are of different test tokens.
    """
    first = _same_text(comparison, results)
    tokens = np.array(first.tokens, dtype=np.int64)
    measured = {
        (model.name, memory): tuple(result.row(str(memory)) for result in results[model.name])
        for model in comparison.models
        for memory in model.memories
    }
    nll = np.array([np.mean([row.nll for row in rows], axis=0) for rows in measured.values()])
    losses, resampled = nll.sum(1) / tokens.sum(), resampled_losses(nll, tokens)
    reference = list(measured).index(comparison.baseline)
    table = []
    for number, ((model, memory), rows) in enumerate(measured.items()):
        change = change_nats = None
        if number != reference:
            draws = resampled[:, number] - resampled[:, reference]
            difference = float(losses[number] - losses[reference])
            change = Estimate(100 * math.expm1(difference), interval(100 * np.expm1(draws)))
            change_nats = Estimate(difference, interval(draws))
        table.append(
            Row(
                *(model, str(memory), rows),
                tuned_ppl=math.exp(sum(row.tuned_loss for row in rows) / len(rows)),
                ppl=Estimate(math.exp(losses[number]), interval(np.exp(resampled[:, number]))),
                ppl_of_checkpoints=tuple(math.exp(sum(row.nll) / tokens.sum()) for row in rows),
                change=change,
                change_nats=change_nats,
            )
        )
    return table


def _same_text(comparison: Comparison, results: Results) -> CheckpointResult:
    """The first result; raises ValueError if another is of other test tokens."""
    (first_name, first), *others = [
        (f"{model.name}, {path}", result)
        for model in comparison.models
        for path, result in zip(model.checkpoints, results[model.name])
    ]
    for name, other in others:
        if other.text != first.text:
            raise ValueError(
                f"{name}: {sum(other.tokens):,} test tokens in {len(other.tokens):,} samples, not those of "
                f"{first_name}, {sum(first.tokens):,} in {len(first.tokens):,}: pass the same flags of "
                "--tokens-per-sample, --context-window and --sample-break-mode to all models"
            )
    return first
