"""Checks of what a YAML file of this folder says; an error names file, key and fix."""

import shlex
from collections.abc import Sequence
from typing import Any

from trime_fairseq.flags.bounds import Bounds

POSITIVE, SEED = Bounds(1, 10**9), Bounds(0, 2**32 - 1)


def check_keys(content: Any, where: Any, needed: set[str], known: Sequence[str]) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where}: needs the keys {', '.join(sorted(needed))}")
    for key in sorted(needed - set(content)):
        raise ValueError(f"{where}: the key {key} is missing")
    for key in content:
        if key not in known:
            raise ValueError(f"{where}: {key}: no such key; there are {', '.join(known)}")


def mapping(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{where}: needs names, each with what belongs to it")
    return content


def words(flags: Any, where: str) -> tuple[str, ...]:
    if not isinstance(flags, str):
        raise ValueError(f"{where}: flags as one text, not {flags!r}")
    try:
        return tuple(shlex.split(flags))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def number(value: Any, where: str, bounds: Bounds = POSITIVE) -> int:
    if type(value) is not int:
        raise ValueError(f"{where} must be a whole number, not {value!r}")
    problem = bounds.problem(value)
    if problem:
        raise ValueError(f"{where} {problem}")
    return value


def seeds(values: Any, where: str) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{where}: a list of whole numbers, such as [1, 2, 3], not {values!r}")
    for value in values:
        number(value, where, SEED)
        if values.count(value) > 1:
            raise ValueError(f"{where}: {value} is there {values.count(value)} times: leave one")
    return tuple(values)
