"""Damaged files: the right result, or one clear error. Never a crash, a hang, or another number."""

import random
import shutil

import pytest

from tests.fuzzing.forked import call
from tests.fuzzing.mutations import damage
from tests.fuzzing.subjects import SUBJECTS

SEED = 14


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_damaged_files(tmp_path, name):
    subject = SUBJECTS[name]
    whole = tmp_path / "whole"
    whole.mkdir()
    subject.make(whole)
    shutil.copytree(whole, tmp_path / "first", symlinks=True)
    subject.read(tmp_path / "first")  # what is imported when first used, the forked processes have then
    right = _read(subject, whole, tmp_path / "right")
    assert right.value is not None, right
    files = sorted({path.relative_to(whole) for pattern in subject.files for path in whole.glob(pattern)})
    files = [file for file in files if (whole / file).stat().st_size]
    draw = random.Random(f"{SEED} {name}")
    wrong = []
    for number in range(subject.mutations):
        file = files[number % len(files)]
        kind, content = damage(file.name, (whole / file).read_bytes(), draw)
        outcome = _read(subject, whole, tmp_path / "damaged", (file, content))
        problem = _problem(outcome, right, file, tmp_path)
        if problem:
            wrong.append(f"{number} {kind} of {file}: {problem}")
    assert not wrong, f"{len(wrong)} of {subject.mutations}:\n" + "\n".join(wrong)


def _read(subject, whole, folder, damaged=None):
    """The outcome of reading a copy of the files, one of them damaged."""
    shutil.copytree(whole, folder, symlinks=True)
    try:
        if damaged:
            file, content = damaged
            (folder / file).write_bytes(content)
        return call(lambda: subject.read(folder))
    finally:
        shutil.rmtree(folder)


def _problem(outcome, right, file, folder):
    if outcome.fault:
        return outcome.fault
    if outcome.error is None:
        return None if outcome.value == right.value else f"read as {str(outcome.value):.60}, without a word"
    if "\n" in outcome.error.strip():
        return f"an error of several lines: {outcome.error:.300}"
    if str(folder) not in outcome.error:
        return f"an error that names no file: {outcome.error:.300}"
    return None
