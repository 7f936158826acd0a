"""The results of one checkpoint: what was tuned, and sums over the test text. All losses are in nats."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class TunedSetting:
    """Fields of :class:`MemoryConfig` that are not the defaults, and the loss per token that was tuned."""

    setting: Json
    loss: float


@dataclass(frozen=True)
class TunedRow:
    """What tuning found for a row.

    Attributes:
        memory: its name.
        best: of all settings.
        by_size: the best of each size of the long-term memory; empty without one.
        remarks: limits that were reached.
    """

    memory: str
    best: TunedSetting
    by_size: tuple[TunedSetting, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class TunedRows:
    """The rows of a checkpoint after the pass over the tuning subset.

    Attributes:
        tokens: of the tuning subset.
        seconds: that the pass and the search took.
    """

    rows: tuple[TunedRow, ...]
    tokens: int
    seconds: float

    @classmethod
    def from_json(cls, content: Json) -> "TunedRows":
        rows = []
        for row in content["rows"]:
            by_size = tuple(TunedSetting(**entry) for entry in row["by_size"])
            rows.append(TunedRow(row["memory"], TunedSetting(**row["best"]), by_size, tuple(row["remarks"])))
        return cls(tuple(rows), content["tokens"], content["seconds"])


@dataclass(frozen=True)
class SizePoint:
    """A row with a smaller memory, tuned for that size: its loss on the test subset."""

    mem_size: int
    tuned_loss: float
    test_loss: float


@dataclass(frozen=True)
class RowResult:
    """A row of one checkpoint.

    Attributes:
        memory: its name.
        setting: fields of :class:`MemoryConfig` that are not the defaults, as tuned.
        flags: the same as flags of ``fairseq-eval-lm``.
        remarks: limits that tuning reached.
        tuned_loss: per token, on the tuning subset.
        nll: negative log-likelihood of each test sample.
        mass: share of the distribution that lies on memories, a mean over test tokens.
        shares: of the target's probability that come from each memory, means over test tokens.
        gain_by_frequency: sum of the gain over the model alone, by bin of the target's frequency.
        gain_inside, gain_outside: sum of the gain over targets that occur in the memory, and over the others.
        tokens_inside: number of targets that occur in the memory.
        by_size: the curve over the size of the long-term memory; empty without one.
    """

    memory: str
    setting: Json
    flags: tuple[str, ...]
    remarks: tuple[str, ...]
    tuned_loss: float
    nll: tuple[float, ...]
    mass: float
    shares: Mapping[str, float]
    gain_by_frequency: tuple[float, ...]
    gain_inside: float
    gain_outside: float
    tokens_inside: int
    by_size: tuple[SizePoint, ...] = ()


@dataclass(frozen=True)
class CheckpointResult:
    """All rows of one checkpoint.

    Attributes:
        text: hash of the test tokens and of how they are cut into samples: equal where rows can be compared.
        tokens: of each test sample.
        tune_tokens: of the tuning subset.
        tokens_by_frequency: test tokens in each bin.
        counted_in: the file whose words were counted for the bins.
        measured: date, hardware, versions, seconds.
    """

    text: str
    tokens: tuple[int, ...]
    tune_tokens: int
    tokens_by_frequency: tuple[int, ...]
    counted_in: str
    rows: tuple[RowResult, ...]
    measured: Json

    def row(self, memory: str) -> RowResult:
        (found,) = [row for row in self.rows if row.memory == memory]
        return found

    @classmethod
    def from_json(cls, content: Json) -> "CheckpointResult":
        rows = []
        for row in content["rows"]:
            by_size = tuple(SizePoint(**point) for point in row["by_size"])
            rows.append(RowResult(**{**_tuples(row), "by_size": by_size}))
        return cls(**{**_tuples(content), "rows": tuple(rows)})


def _tuples(content: Json) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
