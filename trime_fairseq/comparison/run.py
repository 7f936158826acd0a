"""Runs a comparison: what is missing is measured, then tables and plots are written."""

import logging
import os
import re

from ..evaluation.rescue import write_or_rescue
from ..files import Lock, check_writable, text_hash, whole_file, write_json
from .cells import footnotes
from .checkpoint import Checkpoint
from .formats import as_json, comma_separated, latex, markdown
from .frequencies import Counts, training_counts
from .kept import Identity, keep, kept
from .measure import Checker, Recorder, evaluate_rows, tune_rows, tuning_pass
from .plots import draw
from .request import Comparison
from .result import CheckpointResult, TunedRows
from .steps import Steps
from .table import Results, make_table

logger = logging.getLogger(__name__)


def compare(comparison: Comparison, record: Recorder, check: Checker, command: str) -> str:
    """Measures what is not there yet, and writes all results to the folder of the comparison.

    Args:
        record: runs the model over a text.
        check: raises the errors with which that would stop.
        command: as it was given, for the footnotes.

    Returns:
        The table in Markdown.

    Raises:
        ValueError: for what cannot be compared, and if another command is writing to the folder.
    """
    folder = comparison.output
    check_writable("--output", os.path.join(folder, "comparison.json"))
    lock = Lock(os.path.join(folder, ".lock"))
    if not lock.acquire():
        raise ValueError(
            f"--output {folder}: another trime-compare writes there: wait, or name another folder"
        )
    try:
        results = _measure(comparison, record, check)
        return _write_all(comparison, results, command)
    finally:
        lock.release()


def _measure(comparison: Comparison, record: Recorder, check: Checker) -> Results:
    """The results of all checkpoints, kept or new."""
    checkpoints = [
        Checkpoint(comparison, model, number)
        for model in comparison.models
        for number in range(len(model.checkpoints))
    ]
    found = {checkpoint: _kept(checkpoint) for checkpoint in checkpoints}
    missing = [checkpoint for checkpoint in checkpoints if found[checkpoint] is None]
    if len(missing) > 1:
        logger.info(f"TRIME: checking {len(missing)} checkpoints and what belongs to them")
        for checkpoint in missing:
            check(*tuning_pass(checkpoint))
    counts = training_counts(comparison.data) if missing else None
    steps = Steps(len(checkpoints), ("tuning", "test"))
    results: dict[str, list[CheckpointResult]] = {model.name: [] for model in comparison.models}
    for checkpoint in checkpoints:
        result = found[checkpoint]
        if result is None:
            assert counts is not None
            result = _new(checkpoint, record, counts, steps)
        else:
            steps.skip(f"{checkpoint}: taken from {_file(checkpoint)}.json", "tuning", "test")
        results[checkpoint.model.name].append(result)
    return results


def _kept(checkpoint: Checkpoint) -> CheckpointResult | None:
    content = kept(f"{_file(checkpoint)}.json", checkpoint.identity())
    return None if content is None else CheckpointResult.from_json(content)


def _new(
    checkpoint: Checkpoint, record: Recorder, counts: tuple[Counts, str], steps: Steps
) -> CheckpointResult:
    """Measures a checkpoint and keeps the result, and what was tuned as soon as it is."""
    path, identity = _file(checkpoint), checkpoint.identity()
    content = kept(f"{path}.tuned.json", identity)
    if content is None:
        with steps.step(f"{checkpoint}: tuning on {checkpoint.comparison.tune}", "tuning"):
            tuned = tune_rows(checkpoint, record)
        _keep(f"{path}.tuned.json", identity, tuned)
    else:
        tuned = TunedRows.from_json(content)
        steps.skip(f"{checkpoint}: settings taken from {path}.tuned.json", "tuning")
    with steps.step(f"{checkpoint}: evaluation on {checkpoint.comparison.test}", "test"):
        result = evaluate_rows(checkpoint, tuned, record, counts)
    _keep(f"{path}.json", identity, result)
    return result


def _keep(path: str, identity: Identity, content: object) -> None:
    """Writes a file; if the disk is full, writes it elsewhere, since it took hours to compute."""
    write_or_rescue(
        "--output", path, lambda place: keep(place, identity, content), "run the command again to go on"
    )


def _file(checkpoint: Checkpoint) -> str:
    """Where the results of a checkpoint are kept, without its ending."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", checkpoint.model.name).strip("-.")[:40]
    # Names that differ in other characters only.
    mark = text_hash(checkpoint.model.name)[:8]
    return os.path.join(checkpoint.comparison.output, "checkpoints", f"{name}-{mark}-{checkpoint.number + 1}")


def _write_all(comparison: Comparison, results: Results, command: str) -> str:
    try:
        return _write(comparison, results, command)
    except OSError as error:
        folder = comparison.output
        raise ValueError(
            f"--output {folder}: {error.strerror}; all that was measured is in {folder}/checkpoints: make "
            "room and run the command again, it only writes what is missing"
        ) from error


def _write(comparison: Comparison, results: Results, command: str) -> str:
    rows = make_table(comparison, results)
    notes = footnotes(comparison, results, command)
    text = markdown(rows, notes)
    for ending, content in (("md", text), ("tex", latex(rows, notes)), ("csv", comma_separated(rows))):
        with whole_file(os.path.join(comparison.output, f"comparison.{ending}")) as file:
            file.write(content)
    write_json(
        os.path.join(comparison.output, "comparison.json"), as_json(comparison, results, rows, notes, command)
    )
    first = next(iter(results.values()))[0]
    for path in draw(rows, first, comparison.output):
        logger.info(f"TRIME: drew {path}")
    return text
