"""What the commands of this package have in common."""

import argparse
import logging
import sys
from typing import Callable


def add_flag(group: argparse._ActionsContainer, flag: str, **settings: object) -> None:
    """A flag with underscores, as published, and with hyphens."""
    names = dict.fromkeys((flag, flag.replace("_", "-")))
    group.add_argument(*names, **settings)  # type: ignore[arg-type]


def log_to_stdout() -> None:
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        level=logging.INFO,
        stream=sys.stdout,
        force=True,  # importing fairseq has configured it already
    )
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)


def run(program: str, command: Callable[[], int]) -> int:
    """The exit status of a command: its own, or 1 after an error of one line."""
    try:
        return command()
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{program}: error: {error}\n")
        return 1
