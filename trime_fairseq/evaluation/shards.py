"""The files of shards that separate commands evaluate, and the result of the whole."""

import logging
import math
import os
from collections.abc import Mapping
from typing import Any

from ..files import read_json, write_json
from .rescue import write_or_rescue
from .result import EvaluationResult, Shard
from .units import TextUnits

logger = logging.getLogger(__name__)

# Numbers of a shard's file; an infinite loss is null.
_NUMBERS = ("seconds", "mem_mass", "mem_share")
_LOSSES = ("nll_nats", "nll_nats_without_memory")
_COUNTS = ("tokens", "zero_probability_tokens", "recall_queries")


def check_shard_files(eval_file: str, shard: Shard) -> None:
    """Raises ValueError for a file of another shard that could not be read at the end; those that are missing
    will be written."""
    for other in (Shard(shard.count, id) for id in range(shard.count) if id != shard.id):
        if os.path.exists(other.file(eval_file)):
            read_shard(other.file(eval_file))


def read_shard(path: str) -> dict[str, Any]:
    """The content of the file of a shard.

    Raises:
        ValueError: naming file and field, for anything else.
        FileNotFoundError: if it is not there.
    """
    fix = "remove it and evaluate that shard again"
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}: {fix}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no result of an evaluation: {fix}")
    for name in (*_NUMBERS, *_LOSSES, *_COUNTS):
        wanted = _wanted(content, name)
        if wanted:
            raise ValueError(f"{path}: {name} must be {wanted}, not {content.get(name)!r:.50}: {fix}")
    stages = content.get("stage_seconds", {})
    if not isinstance(stages, dict) or not all(map(_is_number, stages.values())):
        raise ValueError(f"{path}: stage_seconds must be numbers by name: {fix}")
    if content.get("text_units") is not None and not TextUnits.is_one(content["text_units"]):
        raise ValueError(f"{path}: text_units must be counts of words and bytes: {fix}")
    if content.get("recall_queries") and not all(
        _is_number(content.get(name)) for name in ("recall_at_1", "recall_at_k")
    ):
        raise ValueError(f"{path}: recall_at_1 and recall_at_k must be numbers: {fix}")
    return content


def _wanted(content: Mapping[str, Any], name: str) -> str | None:
    """What a field must be, if it is not."""
    value: Any = content.get(name)
    if name in _COUNTS:
        is_there = name in content or name == "tokens"
        good = type(value) is int and 0 <= value < 2**63
        return "an integer of at least 0" if is_there and not good else None
    if name in _LOSSES and value is None and name in content:
        return None
    return None if _is_number(value) and value >= 0 else "a number of at least 0"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def merge_shard_files(result: EvaluationResult, eval_file: str, count: int) -> None:
    """Writes and logs the result of the whole, if the files of all ``count`` shards are there.

    Args:
        result: of this shard.
        eval_file: the file of the whole.

    Raises:
        ValueError: for a file of a shard that was damaged in the meantime, and where the whole cannot be
            written.
    """
    shards = []
    for shard in (Shard(count, id) for id in range(count)):
        path = shard.file(eval_file)
        try:
            content = read_shard(path)
        except FileNotFoundError:
            logger.info(f"TRIME: {eval_file} will be written when shard {shard.id} is done as well")
            return
        differing = [name for name, value in result.description.items() if content.get(name) != value]
        if differing:
            logger.warning(
                f"TRIME: {path} is of another evaluation ({', '.join(differing)} differ); not merged"
            )
            return
        shards.append(content)
    whole = EvaluationResult.merge(shards, result.description)
    whole.log(f"all {count} shards,")
    write_result(eval_file, {**whole.as_json(), "num_shards": count})


def write_result(path: str, content: Mapping[str, Any], *, follow_links: bool = True) -> None:
    """Writes a result that was logged before.

    Args:
        follow_links: False for the file of a shard, whose name the user did not choose.

    Raises:
        ValueError: if it cannot be written there; it says where it is instead.
    """

    def write(place: str) -> None:
        write_json(place, content, follow_links=follow_links)

    write_or_rescue("--eval-file", path, write, "the loss stands in the log")
