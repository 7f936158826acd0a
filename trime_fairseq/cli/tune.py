"""Tunes the memories of a model: one evaluation, the loss of all settings of a grid. See README.md."""

import logging
import os
import sys
import tempfile
from typing import Any, Dict, List, Optional, Tuple

from ..evaluation.eval_lm import Substitutes, run_eval_lm
from ..files import check_writable, read_json, write_json
from ..tuning import GridScorer, Request, read_request
from ..tuning.plot import draw
from ..tuning.report import command_for_test, content, distinct, edges, rank, table
from ..tuning.request import PROGRAM
from .flags import log_to_stdout, run

logger = logging.getLogger(__name__)


def main(argv: Optional[List[str]] = None) -> int:
    """The exit status: 0, or 1 after an error of one line."""
    log_to_stdout()

    def command() -> int:
        _tune(read_request(sys.argv[1:] if argv is None else argv))
        return 0

    return run(PROGRAM, command)


def _tune(request: Request) -> None:
    for name in ("tuning.json", "tuning.png") if request.output else ():
        check_writable("--output", os.path.join(request.output or "", name))
    if request.subset.startswith("test"):
        logger.warning(
            f"TRIME: --gen-subset {request.subset}: settings that were chosen on the test set say nothing "
            "about other text; leave it out to tune on valid"
        )
    count = sum(1 for _ in request.axes.points())
    ordinary = ", ".join(f"{name} {value}" for name, value in request.ordinary.items())
    logger.info(f"TRIME: {count:,} settings in one pass; the losses below are of {ordinary}")
    scorer, evaluation = _evaluate(request)
    points = rank(request.axes, scorer.nll(), scorer.totals.tokens)
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = command_for_test(request, points[0], package)
    if request.output:
        path = os.path.join(request.output, "tuning.json")
        write_json(path, content(request, points, evaluation, command))
        draw(request.axes, points, os.path.join(request.output, "tuning.png"))
    shown = distinct(request.axes, points)[: max(request.show, 1)]
    where = f"{request.subset}, {scorer.totals.tokens:,} tokens"
    sys.stdout.write(f"\n{len(shown):,} best of {count:,} settings on {where}:\n\n")
    sys.stdout.write(f"{table(request.axes, shown)}\n\n")
    for remark in edges(request.axes, points[0]):
        sys.stdout.write(f"{remark}\n")
    sys.stdout.write(f"On the test set:\n\n{command}\n")


def _evaluate(request: Request) -> Tuple[GridScorer, Dict[str, Any]]:
    """The scorer after the evaluation, and the result of the ordinary point as ``--eval-file`` has it."""
    made: List[GridScorer] = []

    def make_scorer(*args: Any, **options: Any) -> GridScorer:
        made.append(GridScorer(request.axes, *args, **options))
        return made[-1]

    with tempfile.TemporaryDirectory() as folder:
        eval_file = request.eval_file or os.path.join(folder, "evaluation.json")
        words = [*request.arguments(request.ordinary, request.subset), "--eval-file", eval_file]
        if request.user_dir:
            words += ["--user-dir", request.user_dir]
        run_eval_lm(words, Substitutes(scorer=make_scorer))
        return made[0], read_json(eval_file)


if __name__ == "__main__":
    sys.exit(main())
