"""Runs a command of fairseq in this process, with a task of one's own in place of ours."""

import contextlib
import io
import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any

from fairseq import options
from fairseq.tasks import TASK_REGISTRY, import_tasks

from ..files import PACKAGE


def register() -> None:
    """Registers this package with fairseq, whose ``--user-dir`` skips a package that is imported already.

    The one arrow from this room upwards, to ``tasks``: by fairseq's importer, when a command begins.
    """
    import_tasks(os.path.join(PACKAGE, "tasks"), f"{__name__.split('.')[0]}.tasks")


@contextlib.contextmanager
def command(name: str, words: Sequence[str], task: str, kind: type[Any]) -> Iterator[None]:
    """While it lasts, this process is the command ``name`` with these arguments, and ``--task task`` is
    ``kind``."""
    before, argv = TASK_REGISTRY[task], sys.argv
    sys.argv = [name, *words]
    TASK_REGISTRY[task] = kind
    try:
        yield
    finally:
        TASK_REGISTRY[task] = before
        sys.argv = argv


def parse(parser: ArgumentParser, words: Sequence[str]) -> Any:
    """The flags of a command.

    Raises:
        ValueError: for wrong flags. fairseq would print the usage of its 150 flags, and end the process.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return options.parse_args_and_arch(parser, list(words))
    except SystemExit as error:
        if error.code != 2:
            raise
        last = printed.getvalue().strip().splitlines()[-1]
        raise ValueError(last.partition("error: ")[2] or last) from None


def without_our_folder(arguments: Sequence[str]) -> list[str]:
    """The arguments without ``--user-dir`` of this package, however its folder is spelt."""
    words: list[str] = []
    given = iter(arguments)
    for word in given:
        if word == "--user-dir" or word.startswith("--user-dir="):
            folder = word.split("=", 1)[1] if "=" in word else next(given, "")
            if os.path.realpath(folder) != os.path.realpath(PACKAGE):
                words += ["--user-dir", folder]
            continue
        words.append(word)
    return words


def one_process(arguments: Sequence[str], task: str) -> list[str]:
    """The arguments without ``--user-dir`` of this package, for one process and our task.

    Raises:
        ValueError: for another task.
    """
    words = without_our_folder(arguments)
    for number, word in enumerate(words):
        name, _, value = word.partition("=")
        other = value or "".join(words[number + 1 : number + 2])
        if name == "--task" and other != task:
            raise ValueError(f"--task {other} knows no memories: leave it out, or pass --task {task}")
    for name, value in (("--task", task), ("--distributed-world-size", "1")):
        if not any(word.split("=")[0] == name for word in words):
            words += [name, value]
    return words
