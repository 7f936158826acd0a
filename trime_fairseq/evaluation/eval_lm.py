"""Runs stock ``fairseq-eval-lm`` in this process, with another scorer or another place for the keys."""

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Optional

from ..datastore import Manifest, RowSink


@dataclass(frozen=True)
class Substitutes:
    """What an evaluation uses in place of its own.

    Attributes:
        scorer: called like :class:`trime_fairseq.evaluation.scorer.TrimeScorer`.
        sink: makes the :class:`RowSink` for the datastore that the manifest describes.
    """

    scorer: Optional[Callable[..., Any]] = None
    sink: Optional[Callable[[Manifest], RowSink]] = None


_current = Substitutes()


def substitutes() -> Substitutes:
    """Those of the evaluation that runs."""
    return _current


@contextmanager
def _using(chosen: Substitutes) -> Iterator[None]:
    global _current
    before, _current = _current, chosen
    try:
        yield
    finally:
        _current = before


def evaluation_flags(arguments: List[str]) -> List[str]:
    """The arguments without ``--user-dir`` of this package, which is imported already; one process."""
    words: List[str] = []
    given = iter(arguments)
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for word in given:
        if word == "--user-dir" or word.startswith("--user-dir="):
            folder = word.split("=", 1)[1] if "=" in word else next(given, "")
            if os.path.abspath(folder) != here:
                words += ["--user-dir", folder]
            continue
        words.append(word)
    if "--task" not in words:
        words += ["--task", "trime_language_modeling"]
    if "--distributed-world-size" not in words:
        words += ["--distributed-world-size", "1"]
    return words


def run_eval_lm(arguments: List[str], chosen: Substitutes) -> None:
    """``fairseq-eval-lm ARGUMENTS``, in one process.

    Raises:
        SystemExit: as fairseq does for wrong flags.
        ValueError: for bad input.
    """
    from fairseq_cli import eval_lm

    before, sys.argv = sys.argv, ["fairseq-eval-lm", *evaluation_flags(arguments)]
    try:
        with _using(chosen):
            eval_lm.cli_main()
    finally:
        sys.argv = before
