"""Compares models and their memories: every row is tuned on one text and evaluated on another."""

import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .flags import log_to_stdout, run

PROGRAM = "trime-compare"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 1 after an error of one line."""
    arguments = sys.argv[1:] if argv is None else argv

    def command() -> int:
        # Not with this module: where fairseq is missing, run() says so in one line.
        from ..comparison import compare, read_arguments
        from .checking import check
        from .recording import record

        log_to_stdout()
        comparison = read_arguments(arguments)
        with _without_configurations():
            table = compare(comparison, record, check, shlex.join([PROGRAM, *arguments]))
        sys.stdout.write(f"\n{table}")
        return 0

    return run(PROGRAM, command)


@contextmanager
def _without_configurations() -> Iterator[None]:
    """For each pass fairseq would log its configuration, of 6,000 characters."""
    loggers = [logging.getLogger(name) for name in ("fairseq", "fairseq_cli")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
