"""Runs stock ``fairseq-eval-lm`` in this process: :func:`evaluate`, and with a task of one's own."""

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from fairseq import options
from fairseq.tasks import TASK_REGISTRY, import_tasks

from ..files import PACKAGE
from ..flags import flag
from .config import EvaluationConfig, MemoryConfig
from .result import EvaluationResult
from .run import EvaluationRun

TASK = "trime_language_modeling"


def evaluate(
    checkpoint: str, data: str, config: MemoryConfig | EvaluationConfig | None = None, **flags: Any
) -> EvaluationResult:
    """Evaluates a model on a binarised text, as ``fairseq-eval-lm DATA --path CHECKPOINT`` does.

        local = EvaluationConfig(use_local=True, tokens_per_sample=256)
        result = evaluate("checkpoint_best.pt", "data-bin/my", local, gen_subset="test")
        gain = result.ppl_without_memory - result.ppl

    Args:
        checkpoint: file of the model.
        data: folder of the binarised text.
        config: the memories, the datastore, how the text is cut.
        flags: further flags of ``fairseq-eval-lm`` by their names: ``gen_subset="test"``, ``batch_size=8``,
            ``cpu=True``.

    Raises:
        ValueError: for input that cannot be evaluated, and for a flag that ``fairseq-eval-lm`` does not have.
        OSError: for a file that is not there.
    """
    words = [data, "--path", checkpoint]
    config = config or EvaluationConfig()
    defaults = type(config)()
    given = {entry.name: getattr(config, entry.name) for entry in fields(config) if entry.name != "_name"}
    changed = {name: value for name, value in given.items() if value != getattr(defaults, name)}
    for name, value in {**changed, **flags}.items():
        if value is None or value is False:
            continue
        words += [flag(name)] if value is True else [flag(name), str(value)]
    return run_eval_lm(words)


def run_eval_lm(arguments: Sequence[str], task: type[Any] | None = None) -> EvaluationResult:
    """``fairseq-eval-lm ARGUMENTS`` in this process and no other.

    Args:
        arguments: of the command, DATA included.
        task: a subclass of our task to use instead: it may have its own ``build_scorer`` and ``build_sink``.

    Raises:
        ValueError: for input that cannot be evaluated, for wrong flags, and for another ``--task``.
        OSError: for a file that is not there.
    """
    words = _one_process(arguments)
    register()
    from fairseq_cli import eval_lm

    runs: list[EvaluationRun] = []
    before = TASK_REGISTRY[TASK]

    class ObservedTask(task or before):  # type: ignore[misc]
        def eval_lm_dataloader(self, *args: Any, **options: Any) -> EvaluationRun:
            runs.append(super().eval_lm_dataloader(*args, **options))
            return runs[-1]

    argv, sys.argv = sys.argv, ["fairseq-eval-lm", *words]
    TASK_REGISTRY[TASK] = ObservedTask
    try:
        _check_flags(words)
        eval_lm.cli_main()
    except SystemExit:
        # Where nothing was left to evaluate, there is nothing for fairseq to print.
        if not runs or runs[0].result is None:
            raise
    finally:
        TASK_REGISTRY[TASK] = before
        sys.argv = argv
    if not runs or runs[0].result is None:
        raise ValueError("fairseq-eval-lm ended without a result")
    return runs[0].result


def _check_flags(words: Sequence[str]) -> None:
    """fairseq would print the usage of its 150 flags, and end the process."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            options.parse_args_and_arch(options.get_eval_lm_parser(), list(words))
    except SystemExit as error:
        if error.code != 2:
            raise
        last = printed.getvalue().strip().splitlines()[-1]
        raise ValueError(last.partition("error: ")[2] or last) from None


def register() -> None:
    """Registers this package with fairseq, whose ``--user-dir`` skips a package that is imported already.

    The one arrow from this room upwards, to ``tasks``: by fairseq's importer, when an evaluation begins.
    """
    import_tasks(os.path.join(PACKAGE, "tasks"), f"{__name__.split('.')[0]}.tasks")


def without_our_folder(arguments: Sequence[str]) -> list[str]:
    """The arguments without ``--user-dir`` of this package, however its folder is spelt."""
    words: list[str] = []
    given = iter(arguments)
    for word in given:
        if word == "--user-dir" or word.startswith("--user-dir="):
            folder = word.split("=", 1)[1] if "=" in word else next(given, "")
            if os.path.realpath(folder) != os.path.realpath(PACKAGE):
                words += ["--user-dir", folder]
            continue
        words.append(word)
    return words


def _one_process(arguments: Sequence[str]) -> list[str]:
    """The arguments without ``--user-dir`` of this package, for one process and our task.

    Raises:
        ValueError: for another task.
    """
    words = without_our_folder(arguments)
    for number, word in enumerate(words):
        name, _, value = word.partition("=")
        task = value or "".join(words[number + 1 : number + 2])
        if name == "--task" and task != TASK:
            raise ValueError(f"--task {task} knows no memories: leave it out, or pass --task {TASK}")
    for name, value in (("--task", TASK), ("--distributed-world-size", "1")):
        if not any(word.split("=")[0] == name for word in words):
            words += [name, value]
    return words
