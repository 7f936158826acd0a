"""Compares models and their memories: every row is tuned on one text and evaluated on another."""

import logging
import shlex
import sys
from collections.abc import Sequence

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
        # For each pass fairseq would log its configuration, of 6,000 characters.
        for name in ("fairseq", "fairseq_cli"):
            logging.getLogger(name).setLevel(logging.WARNING)
        comparison = read_arguments(arguments)
        table = compare(comparison, record, check, shlex.join([PROGRAM, *arguments]))
        sys.stdout.write(f"\n{table}")
        return 0

    return run(PROGRAM, command)


if __name__ == "__main__":
    sys.exit(main())
