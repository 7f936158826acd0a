"""Files that are there as a whole or not at all, hashes, locks, and JSON files that describe other files."""

import fcntl
import hashlib
import json
import os
import tempfile
import types
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from typing import IO, Annotated, Any, ClassVar, TypeVar

# The folder of this package, which ``--user-dir`` names.
PACKAGE = os.path.dirname(os.path.abspath(__file__))
# The latest format of the descriptions that this version reads and writes.
FORMAT_VERSION = 1
# Descriptions are a few hundred bytes; more is another file.
_LARGEST_DESCRIPTION = 2**20

Self = TypeVar("Self", bound="Description")

# Annotations of the numbers in descriptions, with their bounds.
Positive = Annotated[int, 1]
NotNegative = Annotated[int, 0]


def check_writable(name: str, path: str) -> None:
    """Makes the folder of ``path``; raises ValueError, which begins with ``name``, if no file can be written
    there. ``name`` is the flag or argument that holds the path."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{name} {path}: {error}") from error
    if os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise ValueError(f"{name} {path}: cannot be written there")


def modification_time(path: str | None) -> float | None:
    """Seconds since 1970; None for what is not a local file."""
    return os.path.getmtime(path) if path and os.path.exists(path) else None


@contextmanager
def whole_file(path: str, mode: str = "w") -> Iterator[IO[Any]]:
    """A new file that appears under its name, on disk, when the block ends without an error."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    encoding = None if "b" in mode else "utf-8"
    name = os.path.basename(path)
    file = tempfile.NamedTemporaryFile(
        mode, dir=folder, prefix=name + ".", suffix=".tmp", delete=False, encoding=encoding
    )
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Temporary files are the owner's alone; results are for colleagues, too.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(file.name, 0o666 & ~umask)
        os.replace(file.name, path)
    except Exception:
        with suppress(FileNotFoundError):
            os.unlink(file.name)
        raise


def write_json(path: str, content: Any, indent: int | None = 1) -> None:
    """Writes a JSON file that is there as a whole or not at all."""
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=indent) + "\n")


def read_json(path: str) -> Any:
    """Raises ValueError, naming the file, if it is not JSON."""
    with open(path, encoding="utf-8") as file:
        try:
            return json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no JSON file: {error}") from error


def file_hash(*paths: str | None) -> str | None:
    """SHA-256, in hexadecimal digits, of the contents of local files; None if one of them is not there."""
    digest = hashlib.sha256()
    for path in paths:
        if not path or not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def text_hash(text: str) -> str:
    """SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


class Differences(dict[str, str]):
    """Fields of two descriptions that differ, as "this / other"; empty where they agree."""

    def __str__(self) -> str:
        return ", ".join(f"{name} {values}" for name, values in self.items())


@dataclass(frozen=True)
class Description:
    """Base of the dataclasses that are kept as JSON beside the files that they describe.

    Fields are numbers, strings, booleans or, where the annotation says so, None. :meth:`load` checks each
    against its annotation, which may be one with a bound: :data:`Positive`, :data:`NotNegative`.

    Attributes:
        error: what is raised for a file that cannot be used.
        format_version: of the file; later ones than :data:`FORMAT_VERSION` are refused.
    """

    error: ClassVar[type[ValueError]] = ValueError

    format_version: int = field(default=FORMAT_VERSION, kw_only=True)

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
            content = read_json(path)
        except ValueError as problem:
            raise cls.error(str(problem)) from problem
        if not isinstance(content, dict) or "format_version" not in content:
            raise cls.error(f"{path} {otherwise}")
        kinds = typing.get_type_hints(cls, include_extras=True)
        values = {}
        for entry in fields(cls):
            if entry.name in content:
                wanted = _wanted(content[entry.name], kinds[entry.name])
                if wanted:
                    raise cls.error(f"{path}: {entry.name} must be {wanted}, not {content[entry.name]!r:.50}")
                values[entry.name] = content[entry.name]
        if values["format_version"] > FORMAT_VERSION:
            raise cls.error(
                f"{path} has format {values['format_version']}, this version reads up to {FORMAT_VERSION}: "
                "update trime_fairseq"
            )
        try:
            return cls(**values)
        except TypeError as problem:
            raise cls.error(f"{path} {otherwise} ({problem})") from problem

    def save(self, path: str) -> None:
        """Writes the JSON file, as a whole or not at all."""
        write_json(path, asdict(self))

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
                found[name] = f"{mine} / {theirs}"
        return found


def _wanted(value: Any, annotation: Any) -> str | None:
    """What a value of JSON should be, if it is not."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        wanted = [_wanted(value, kind) for kind in typing.get_args(annotation)]
        return None if None in wanted else wanted[0]
    if annotation is type(None):
        return None if value is None else "null"
    kind, least = annotation, None
    if typing.get_origin(annotation) is Annotated:
        kind, least = typing.get_args(annotation)
    accepted = (int, float) if kind is float else (kind,)
    is_number = kind in (int, float)
    if type(value) in accepted and (not is_number or -(2.0**63) < value < 2.0**63):
        return None if least is None or value >= least else f"at least {least}"
    names = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
    return names[kind]


class Lock:
    """A lock between processes, held from :meth:`acquire` to :meth:`release` or the end of the process.

    The file is removed on release; what a killed process leaves behind locks nobody out, nor do children
    that outlive it.
    """

    _held: ClassVar[set["Lock"]] = set()

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self, wait: bool = False) -> bool:
        """Whether the lock was free; with ``wait``, waits until it is."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(file)
                return False
            # Who held it may have removed the file between our open and our lock.
            with suppress(FileNotFoundError):
                if os.stat(self.path).st_ino == os.fstat(file).st_ino:
                    self._file = file
                    self._held.add(self)
                    return True
            os.close(file)

    def release(self) -> None:
        if self._file is not None:
            os.unlink(self.path)
            os.close(self._file)
            self._file = None
            self._held.discard(self)

    @classmethod
    def _forget(cls) -> None:
        """In a forked process, a data loader's worker: what it inherits would hold the locks of a killed
        parent until it notices, seconds later."""
        for lock in cls._held:
            if lock._file is not None:
                os.close(lock._file)
                lock._file = None


os.register_at_fork(after_in_child=Lock._forget)
