"""The result of one checkpoint: what was tuned, and sums over the test text. A JSON file keeps it."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..files import Description, read_json, text_hash, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity(Description):
    """What the result of a checkpoint depends on."""

    checkpoint_hash: str
    dictionary_hash: str
    tune_hash: str
    test_hash: str
    train_hash: str | None
    tune: str
    test: str
    flags: str
    memories: str
    datastore: str
    version: str


@dataclass(frozen=True)
class SizePoint:
    """A row with a smaller memory: settings tuned for that size.

    Attributes:
        mem_size: tokens of the long-term memory.
        flags: of ``fairseq-eval-lm``.
        tuned_loss, test_loss: nats per token on the tuning and the test subset.
    """

    mem_size: int
    flags: tuple[str, ...]
    tuned_loss: float
    test_loss: float


@dataclass(frozen=True)
class RowResult:
    """A row of one checkpoint. Losses are in nats.

    Attributes:
        memory: its name.
        setting: fields of :class:`MemoryConfig` as tuned.
        flags: the same as flags of ``fairseq-eval-lm``.
        remarks: limits that tuning reached.
        tuned_loss: per token, on the tuning subset.
        nll: negative log-likelihood of each test sample.
        mass: share of the distribution that lies on memories, a mean over test tokens.
        shares: of the target's probability by where it comes from, means over test tokens.
        gain_by_frequency: sum of the gain over the model alone, by bin of the target's frequency.
        gain_inside, gain_outside: sum of the gain over targets that occur in the memory, and over the others.
        tokens_inside: number of targets that occur in the memory.
        by_size: the curve over the size of the long-term memory; empty without one.
    """

    memory: str
    setting: Mapping[str, Any]
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
        measured: date, hardware, seconds.
    """

    text: str
    tokens: tuple[int, ...]
    tune_tokens: int
    tokens_by_frequency: tuple[int, ...]
    counted_in: str
    rows: tuple[RowResult, ...]
    measured: Mapping[str, Any] = field(default_factory=dict)

    def row(self, memory: str) -> RowResult:
        (found,) = [row for row in self.rows if row.memory == memory]
        return found


def save(path: str, identity: Identity, result: CheckpointResult) -> None:
    """Writes a result, as a whole or not at all."""
    content = asdict(result)
    write_json(path, {"identity": asdict(identity), "checksum": _checksum(content), "result": content})


def load(path: str, identity: Identity) -> CheckpointResult | None:
    """The result in the file; None, with a log line that says why, if it is not there, damaged, or not of
    ``identity``."""
    if not os.path.exists(path):
        return None
    try:
        content = read_json(path)
        known = Identity(**content["identity"])
        result = content["result"]
        if content["checksum"] != _checksum(result):
            raise ValueError(f"{path}: its checksum does not agree")
        read = _read(result)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        logger.warning(f"TRIME: {path} is damaged ({error}); it is measured again")
        return None
    differing = identity.differences(known)
    if differing:
        logger.warning(f"TRIME: {path} is of another comparison ({differing}); it is measured again")
        return None
    return read


def _checksum(content: Any) -> str:
    return text_hash(json.dumps(content, sort_keys=True))


def _read(content: dict[str, Any]) -> CheckpointResult:
    rows = []
    for row in content["rows"]:
        points = tuple(SizePoint(**{**point, "flags": tuple(point["flags"])}) for point in row["by_size"])
        rows.append(RowResult(**{**_tuples(row), "by_size": points}))
    return CheckpointResult(**{**_tuples(content), "rows": tuple(rows)})


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
