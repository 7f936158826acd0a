"""JSON files that say what lies beside them: manifests of datastores, descriptions of indexes and batches."""

from dataclasses import fields
from typing import Type, TypeVar

from .files import read_json

FORMAT_VERSION = 1

Description = TypeVar("Description")


def read_description(
    kind: Type[Description], path: str, otherwise: str, error: Type[ValueError] = ValueError
) -> Description:
    """A dataclass from a JSON file with the field ``format_version``; fields it does not know are left out.

    Raises:
        error: for another file (``otherwise`` says what to do), or one of a later format.
    """
    try:
        content = read_json(path)
    except ValueError as problem:
        raise error(str(problem)) from problem
    if not isinstance(content, dict) or "format_version" not in content:
        raise error(f"{path} {otherwise}")
    if content["format_version"] > FORMAT_VERSION:
        raise error(
            f"{path} has format {content['format_version']}, this version reads up to {FORMAT_VERSION}: "
            "update trime_fairseq"
        )
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{name: value for name, value in content.items() if name in names})
    except TypeError as problem:
        raise error(f"{path} {otherwise} ({problem})") from problem
