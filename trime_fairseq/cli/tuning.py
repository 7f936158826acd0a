"""What ``trime-tune`` does: one evaluation, the loss of all settings of a grid."""

import logging
import os
import sys
from collections.abc import Sequence

from ..evaluation import EvaluationResult, MemoryConfig, ScorerParts, run_eval_lm
from ..files import PACKAGE, check_writable, write_json
from ..tasks.trime_language_modeling import TrimeLanguageModelingTask
from ..tuning import GridScorer, Request, read_request
from ..tuning.plot import draw
from ..tuning.report import command_for_test, content, distinct, edges, ranked, table

logger = logging.getLogger(__name__)


def tune(arguments: Sequence[str]) -> None:
    """The command, with the arguments of its line.

    Raises:
        ValueError: for input that cannot be tuned.
    """
    request = read_request(arguments)
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
    points = ranked(request.axes, scorer.nll(), scorer.totals.tokens)
    command = command_for_test(request, points[0], PACKAGE)
    if request.output:
        path = os.path.join(request.output, "tuning.json")
        write_json(path, content(request, points, evaluation.as_json(), command))
        draw(request.axes, points, os.path.join(request.output, "tuning.png"))
    shown = distinct(request.axes, points)[: max(request.show, 1)]
    where = f"{request.subset}, {scorer.totals.tokens:,} tokens"
    sys.stdout.write(f"\n{len(shown):,} best of {count:,} settings on {where}:\n\n")
    sys.stdout.write(f"{table(request.axes, shown)}\n\n")
    for remark in edges(request.axes, points[0]):
        sys.stdout.write(f"{remark}\n")
    sys.stdout.write(f"On the test set:\n\n{command}\n")


def _evaluate(request: Request) -> tuple[GridScorer, EvaluationResult]:
    """The scorer after the evaluation, and the result of the ordinary point."""
    made: list[GridScorer] = []

    class TuningTask(TrimeLanguageModelingTask):
        def build_scorer(self, config: MemoryConfig, pad: int, parts: ScorerParts) -> GridScorer:
            made.append(GridScorer(request.axes, config, pad, parts))
            return made[-1]

    words = request.arguments(request.ordinary, request.subset)
    for name, value in (("--eval-file", request.eval_file), ("--user-dir", request.user_dir)):
        words += [name, value] if value else []
    result = run_eval_lm(words, TuningTask)
    return made[0], result
