"""Tunes the memories of a model: the best of all settings from one evaluation."""

import sys
from collections.abc import Sequence

from .flags import log_to_stdout, run, task_of

PROGRAM = "trime-tune"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 1 after an error of one line."""
    arguments = sys.argv[1:] if argv is None else argv

    def command() -> int:
        # Not with this module: where fairseq is missing, run() says so in one line.
        if task_of(arguments) == "trime_translation":
            from .tuning_translation import tune_translation as tune
        else:
            from .tuning import tune_command as tune

        log_to_stdout()
        tune(arguments)
        return 0

    return run(PROGRAM, command)


if __name__ == "__main__":
    sys.exit(main())
