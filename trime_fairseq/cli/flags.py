"""What the commands of this package have in common."""

import argparse
import logging
import sys
import traceback
from collections.abc import Callable, Sequence

from .. import __version__
from ..flags import name_flags
from ..flags.errors import wants_traceback


def add_flag(group: argparse._ActionsContainer, flag: str, **settings: object) -> None:
    """A flag with underscores, as published, and with hyphens."""
    names = dict.fromkeys((flag, flag.replace("_", "-")))
    group.add_argument(*names, **settings)  # type: ignore[arg-type]


def add_version(parser: argparse.ArgumentParser) -> None:
    """``--version`` prints the name of the command and the version of this package."""
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")


def log_to_stdout() -> None:
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        level=logging.INFO,
        stream=sys.stdout,
        force=True,  # importing fairseq has configured it already
    )
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)


def task_of(arguments: Sequence[str]) -> str:
    """The value of ``--task``; empty without it."""
    for number, word in enumerate(arguments):
        name, _, value = word.partition("=")
        if name == "--task":
            return value or "".join(arguments[number + 1 : number + 2])
    return ""


def run(program: str, command: Callable[[], int], **flags: str) -> int:
    """The exit status of a command: its own, or 1 after an error of one line (``TRIME_DEBUG=1``: and the
    traceback before it).

    Args:
        flags: of arguments in messages; see :func:`trime_fairseq.flags.name_flags`.
    """
    try:
        return command()
    except ModuleNotFoundError as error:
        problem = str(error)
        if "pip install" not in problem:
            package = (error.name or problem).split(".")[0]
            problem = f"this needs {package}, which is not installed: pip install {package}"
        trace = traceback.format_exc()
    except (ValueError, OSError, ImportError) as error:
        problem = " ".join(name_flags(str(error), **flags).splitlines())
        trace = traceback.format_exc()
    if wants_traceback():
        sys.stderr.write(trace)
    sys.stderr.write(f"{program}: error: {problem}\n")
    return 1
