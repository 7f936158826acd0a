"""How an error reaches the user of a command: one sentence as the last line, the traceback on demand.

The commands of this package print it themselves (:mod:`trime_fairseq.cli.flags`). fairseq's commands know
nothing of us: there, and in no other program, :func:`report_in_one_line` replaces ``sys.excepthook``.
"""

import builtins
import linecache
import os
import re
import sys
import traceback
from types import TracebackType
from typing import Any

from ..files import PACKAGE
from . import name_flags

# This variable asks for the traceback as well.
DEBUG = "TRIME_DEBUG"
# Errors whose message is a sentence for users. All others are bugs.
_WITH_SENTENCE = (ValueError, OSError, ImportError, RuntimeError)
_OTHERS = re.compile(r"[\\/](torch|fairseq|fairseq_cli)[\\/]")
_FRAME = re.compile(r'^ *File "(.+)", line (\d+)', re.MULTILINE)
_LAST_LINES = re.compile(r"^([A-Za-z_][\w.]*): (.+)", re.MULTILINE | re.DOTALL)


def wants_traceback() -> bool:
    """Whether ``TRIME_DEBUG=1`` asks for tracebacks."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def sentence_of(error: BaseException) -> str | None:
    """What an error of this package says to the user, in one line.

    None for errors that are not ours: those of other programs, and faults of this one, which nobody finds
    without a traceback. Ours are those that a ``raise`` of this package raised, here or in a process that
    was started from here, and those of the operating system that it met.
    """
    text = str(error)
    if "Original Traceback" in text or "terminated with the following error" in text:
        # From a loader's worker, or from the process of a device: its traceback is all that there is.
        return _sentence_of_text(text)
    frames = [(entry.filename, entry.lineno or 0) for entry in traceback.extract_tb(error.__traceback__)]
    if not _is_ours(type(error), frames):
        return None
    return _one_line(text)


def _sentence_of_text(text: str) -> str | None:
    frames = [(found[1], int(found[2])) for found in _FRAME.finditer(text)]
    # After the last frame come its line of source, and the error.
    last = max((found.end() for found in _FRAME.finditer(text)), default=0)
    found = _LAST_LINES.search(text, last)
    if found is None:
        return None
    kind: Any = getattr(builtins, found[1], None)
    if kind is None and found[1].startswith(f"{os.path.basename(PACKAGE)}."):
        kind = ValueError
    if not isinstance(kind, type) or not _is_ours(kind, frames):
        return None
    return _one_line(found[2])


def _is_ours(kind: type[BaseException], frames: list[tuple[str, int]]) -> bool:
    if not issubclass(kind, _WITH_SENTENCE) or not frames:
        return False
    if issubclass(kind, OSError):
        ours = [number for number, (path, _) in enumerate(frames) if _in_package(path)]
        after = frames[ours[-1] + 1 :] if ours else []
        # A missing file needs no traceback. Other errors inside of fairseq or PyTorch are theirs.
        return bool(ours) and (
            issubclass(kind, FileNotFoundError) or not any(_OTHERS.search(path) for path, _ in after)
        )
    path, line = frames[-1]
    if not _in_package(path):
        return False
    # An error of PyTorch or NumPy ends at a line of ours that calls them: that is a bug, not a sentence.
    source = linecache.getline(path, line).strip()
    return not source or source.startswith("raise")


def _in_package(path: str) -> bool:
    return path.startswith(PACKAGE + os.sep)


def _one_line(text: str) -> str:
    return " ".join(name_flags(text).split())


def report_in_one_line() -> None:
    """In one of fairseq's commands, from now on: an error of this package ends in the line
    ``TRIME: error: SENTENCE``, with the traceback before it if ``TRIME_DEBUG=1``. Others keep theirs.

    In other programs, such as notebooks and tests, nothing changes.
    """
    if not runs_fairseq() or getattr(sys.excepthook, "is_of_trime", False):
        return
    before = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sentence = sentence_of(error.with_traceback(trace))
        sys.stdout.flush()
        if sentence is None or wants_traceback():
            before(kind, error, trace)
        if sentence is not None:
            sys.stderr.write(f"TRIME: error: {sentence}\n")
            sys.stderr.flush()

    report.is_of_trime = True  # type: ignore[attr-defined]
    sys.excepthook = report
    # Otherwise Hydra prints errors itself, and ends the process.
    if "hydra" in _program():
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")


def runs_fairseq() -> bool:
    """Whether this process is one of fairseq's commands."""
    return _program().startswith(("fairseq-", "fairseq_cli."))


def _program() -> str:
    """Such as ``fairseq-train``, or ``fairseq_cli.train`` where Python was started with that module or with a
    script that hands over to it."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    if name.startswith("fairseq-"):
        return name
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    command = getattr(main, "cli_main", None)
    module = str(getattr(command, "__module__", ""))
    if module == "__main__":  # python .../fairseq_cli/train.py
        folder, file = os.path.split(str(getattr(main, "__file__", "")))
        return f"{os.path.basename(folder)}.{file.removesuffix('.py')}"
    return module
