"""JSON files that describe other files: dataclasses whose fields are checked when they are read."""

import os
import types
import typing
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar, TypeVar

from .json_file import read_json, write_json

# The latest format of the descriptions that this version reads and writes.
FORMAT_VERSION = 1
# Descriptions are a few hundred bytes; more is another file.
_LARGEST_DESCRIPTION = 2**20

Self = TypeVar("Self", bound="Description")

# Annotations of the numbers in descriptions, with their bounds: Annotated[int, least] or [int, least, most].
# Annotated[str, ("one", "other")] is a choice of words.
Positive = Annotated[int, 1]
NotNegative = Annotated[int, 0]


class Differences(dict[str, str]):
    """Fields of two descriptions that differ, as "this / other"; empty where they agree."""

    def __str__(self) -> str:
        return ", ".join(f"{name} {values}" for name, values in self.items())


@dataclass(frozen=True)
class Description:
    """Base of the dataclasses that are kept as JSON beside the files that they describe.

    Fields are numbers, strings, booleans or, where the annotation says so, None. :meth:`load` checks each
    against its annotation, which may be one with a bound or choices: :data:`Positive`, :data:`NotNegative`.

    Attributes:
        error: what is raised for a file that cannot be used.
        has_version: whether a file without ``format_version`` is refused.
        format_version: of the file; later ones than :data:`FORMAT_VERSION` are refused.
    """

    error: ClassVar[type[ValueError]] = ValueError
    has_version: ClassVar[bool] = True

    format_version: Positive = field(default=FORMAT_VERSION, kw_only=True)

    @classmethod
    def load(cls: type[Self], path: str, otherwise: str) -> Self:
        """Reads the file; fields that the class does not have are left out.

        Args:
            path: the JSON file.
            otherwise: says, after the path, what to do about a file that is no such description.

        Raises:
            error: naming file and field, for anything else than such a description.
        """
        if os.path.getsize(path) > _LARGEST_DESCRIPTION:
            raise cls.error(f"{path} {otherwise}")
        try:
            content = read_json(path, _LARGEST_DESCRIPTION)
        except ValueError as problem:
            raise cls.error(f"{problem} (it {otherwise})") from problem
        if not isinstance(content, dict) or (cls.has_version and "format_version" not in content):
            raise cls.error(f"{path} {otherwise}")
        kinds = typing.get_type_hints(cls, include_extras=True)
        values = {}
        for entry in fields(cls):
            if entry.name in content:
                wanted = _wanted(content[entry.name], kinds[entry.name])
                if wanted:
                    raise cls.error(f"{path}: {entry.name} must be {wanted}, not {content[entry.name]!r:.50}")
                values[entry.name] = content[entry.name]
        if values.get("format_version", FORMAT_VERSION) > FORMAT_VERSION:
            raise cls.error(
                f"{path} has format {values['format_version']}, this version reads up to {FORMAT_VERSION}: "
                "update trime_fairseq"
            )
        try:
            return cls(**values)
        except TypeError as problem:
            raise cls.error(f"{path} {otherwise} ({problem})") from problem

    def save(self, path: str) -> None:
        """Writes the JSON file, as a whole or not at all; a symbolic link is replaced, not followed."""
        write_json(path, asdict(self), follow_links=False)

    def differences(
        self, other: "Description", names: Iterable[str] | None = None, *, unknown_differs: bool = True
    ) -> Differences:
        """Compares two descriptions.

        Args:
            other: of the same class, or one that extends it.
            names: fields to compare; all of this class if None.
            unknown_differs: whether None and a value differ.
        """
        found = Differences()
        for name in names if names is not None else [entry.name for entry in fields(self)]:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs and (unknown_differs or None not in (mine, theirs)):
                found[name] = f"{mine!s:.80} / {theirs!s:.80}"
        return found


def _wanted(value: Any, annotation: Any) -> str | None:
    """What a value of JSON should be, if it is not."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        wanted = [_wanted(value, kind) for kind in typing.get_args(annotation)]
        return None if None in wanted else wanted[0]
    if annotation is type(None):
        return None if value is None else "null"
    kind, bounds = annotation, list[Any]()
    if typing.get_origin(annotation) is Annotated:
        kind, *bounds = typing.get_args(annotation)
    accepted = (int, float) if kind is float else (kind,)
    is_number = kind in (int, float)
    if type(value) not in accepted or (is_number and not -(2.0**63) < value < 2.0**63):
        names = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
        return names[kind]
    return _beyond(value, *bounds)


def _beyond(value: Any, least: Any = None, most: Any = None) -> str | None:
    """What a value of the right type should be, if it is not; ``least`` may be all that it can be."""
    if isinstance(least, tuple):
        return None if value in least else " or ".join(least)
    if least is not None and value < least:
        return f"at least {least}"
    return None if most is None or value <= most else f"at most {most:,}"
