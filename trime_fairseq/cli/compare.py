"""Compares models and their memories: every row is tuned on one text and evaluated on another."""

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
        from .recording import record

        log_to_stdout()
        comparison = read_arguments(arguments)
        sys.stdout.write(f"\n{compare(comparison, record, shlex.join([PROGRAM, *arguments]))}")
        return 0

    return run(PROGRAM, command)


if __name__ == "__main__":
    sys.exit(main())
