"""JSON files, read with bounds and written whole."""

import json
import os
from collections.abc import Mapping
from math import isfinite
from typing import Any

from .places import open_regular
from .whole import whole_file

# Enough for a list of some millions of numbers. At worst, reading a larger file takes more than 2 GB.
LARGEST = 2**26


def write_json(path: str, content: Any, indent: int | None = 1, *, follow_links: bool = True) -> None:
    """Writes a JSON file that is there as a whole or not at all.

    Args:
        follow_links: see :func:`~.whole.whole_file`.

    Raises:
        ValueError: for NaN and infinity, which JSON lacks (give None), before anything is written; else as
            :func:`~.whole.whole_file`.
    """
    try:
        text = json.dumps(content, indent=indent, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            f"{path} is not written: it would hold a number that JSON lacks ({error})"
        ) from error
    with whole_file(path, follow_links=follow_links) as file:
        file.write(text + "\n")


def without_infinity(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON object, with None for NaN and infinity, which JSON lacks."""
    infinite = {name for name, value in content.items() if isinstance(value, float) and not isfinite(value)}
    return {name: None if name in infinite else value for name, value in content.items()}


def read_json(path: str, largest: int = LARGEST) -> Any:
    """The content of a JSON file.

    Args:
        largest: the most bytes that it may have.

    Raises:
        ValueError: naming the file, if it is not JSON, larger, nested too deeply, no regular file, or names
            one thing twice.
    """
    with open(open_regular(path, os.O_RDONLY, follow_links=True), encoding="utf-8") as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise ValueError(f"{path} has {size:,} bytes, {largest:,} are the most: it is another file")
        try:
            return json.load(file, object_pairs_hook=_object)
        except RecursionError:
            raise ValueError(f"{path} is no JSON file: it is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"{path} is no JSON file: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r:.50} is there twice")
    return content
