"""What ``trime-tune`` does: one pass of model and search, then the best of all settings."""

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence

from ..evaluation.rescue import write_or_rescue
from ..files import PACKAGE, check_writable, write_json
from ..flags import flag
from ..tuning import Request, Tuned, read_request, tune
from ..tuning.plot import draw
from ..tuning.report import command_for_test, content, remarks, table
from .recording import record

logger = logging.getLogger(__name__)


def tune_command(arguments: Sequence[str]) -> None:
    """The command, with the arguments of its line.

    Raises:
        ValueError: for input that cannot be tuned, and where no loss is a number.
    """
    request = read_request(arguments)
    for name in ("tuning.json", "tuning.png") if request.output else ():
        check_writable("--output", os.path.join(request.output or "", name))
    warn_of_test(request.subset)
    logger.info("TRIME: one pass of the model; the losses it logs are those without memory")
    words = [*request.others, "--gen-subset", request.subset]
    words += ["--user-dir", request.user_dir] if request.user_dir else []
    found, evaluation = record(words, [request.family], request.axes)
    started = time.perf_counter()
    tuned = tune(found, request.family)
    logger.info(f"TRIME: tried {len(tuned.tried):,} settings in {time.perf_counter() - started:.1f} s")
    command = command_for_test(request, tuned.best.config, PACKAGE)
    # First: where no file can be written, this is what the work was for.
    sys.stdout.write(_report(request, tuned, command))
    sys.stdout.flush()
    if request.output:
        found_there = content(request, tuned, evaluation.as_json(), command)
        _write(request.output, "tuning.json", lambda path: write_json(path, found_there))
        _write(request.output, "tuning.png", lambda path: draw(tuned, path))


def warn_of_test(subset: str) -> None:
    """Says so where ``--gen-subset`` is a test set."""
    if subset.startswith("test"):
        logger.warning(
            f"TRIME: --gen-subset {subset}: settings that were chosen on the test set say nothing "
            "about other text; leave it out to tune on valid"
        )


def _write(folder: str, name: str, write: Callable[[str], object]) -> None:
    path = os.path.join(folder, name)
    write_or_rescue("--output", path, write, "the settings stand above")


def _report(request: Request, tuned: Tuned, command: str) -> str:
    """What the command prints at its end."""
    shown = tuned.settings[: max(request.show, 1)]
    plain, best = tuned.without_memory, tuned.best
    lines = [
        f"\nOn {request.subset}, {tuned.tokens:,} tokens: perplexity {plain.ppl:.2f} without memory, "
        f"{best.ppl:.2f} with the best of {len(tuned.tried):,} settings\n",
        f"{table(tuned, shown)}\n",
    ]
    by_size = tuned.best_by("mem_size")
    if len(by_size) > 1:
        lines.append(f"The best of each {flag('mem_size')}:\n\n{table(tuned, list(by_size.values()))}\n")
    notes = remarks(tuned)
    if notes:
        lines.append("\n".join(notes) + "\n")
    return "\n".join([*lines, f"On the test set:\n\n{command}\n"])
