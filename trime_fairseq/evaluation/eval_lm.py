"""Runs stock ``fairseq-eval-lm`` in this process: :func:`evaluate`, and with a task of one's own."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from fairseq import options
from fairseq.tasks import TASK_REGISTRY

from ..flags import flag
from .config import EvaluationConfig, MemoryConfig
from .in_process import command, one_process, parse, register
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
    words = one_process(arguments, TASK)
    register()
    from fairseq_cli import eval_lm

    runs: list[EvaluationRun] = []

    class ObservedTask(task or TASK_REGISTRY[TASK]):  # type: ignore[misc]
        def eval_lm_dataloader(self, *args: Any, **options: Any) -> EvaluationRun:
            runs.append(super().eval_lm_dataloader(*args, **options))
            return runs[-1]

    with command("fairseq-eval-lm", words, TASK, ObservedTask):
        parse(options.get_eval_lm_parser(), words)
        try:
            eval_lm.cli_main()
        except SystemExit:
            # Where nothing was left to evaluate, there is nothing for fairseq to print.
            if not runs or runs[0].result is None:
                raise
    if not runs or runs[0].result is None:
        raise ValueError("fairseq-eval-lm ended without a result")
    return runs[0].result
