"""Runs stock ``fairseq-generate`` in this process, with a task of one's own if need be."""

import contextlib
import io
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fairseq import options
from fairseq.tasks import TASK_REGISTRY

from ..evaluation.in_process import command, one_process, parse, register

TASK = "trime_translation"


@dataclass(frozen=True)
class Translations:
    """What ``fairseq-generate`` has translated.

    Attributes:
        scorer: fairseq's, of ``--scoring``.
        sentences: how many.
        seconds: that decoding took, without loading and scoring.
    """

    scorer: Any
    sentences: int
    seconds: float


def run_generate(
    arguments: Sequence[str], task: type[Any] | None = None, quiet: bool = False
) -> Translations:
    """``fairseq-generate ARGUMENTS`` in this process and no other.

    Args:
        arguments: of the command, DATA included.
        task: a subclass of our task to use instead.
        quiet: fairseq prints and logs nothing but warnings.

    Raises:
        ValueError: for input that cannot be translated, for wrong flags, and for another ``--task``.
        OSError: for a file that is not there.
    """
    words = one_process(arguments, TASK)
    if quiet:
        words += ["--quiet", "--no-progress-bar"]
    register()
    from fairseq_cli import generate

    counted = [0]
    seconds = [0.0]

    class TimedTask(task or TASK_REGISTRY[TASK]):  # type: ignore[misc]
        def inference_step(self, generator: Any, models: Any, sample: Any, **others: Any) -> Any:
            started = time.perf_counter()
            found = super().inference_step(generator, models, sample, **others)
            seconds[0] += time.perf_counter() - started
            counted[0] += len(found)
            return found

    silence = _silence() if quiet else contextlib.nullcontext()
    with command("fairseq-generate", words, TASK, TimedTask), silence:
        scorer = generate.main(parse(options.get_generation_parser(), words))
    return Translations(scorer, counted[0], seconds[0])


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with quiet_loggers("fairseq", "fairseq_cli"), contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def quiet_loggers(*names: str) -> Iterator[None]:
    """While it lasts, these loggers log nothing but warnings."""
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    try:
        for logger, _ in before:
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)
