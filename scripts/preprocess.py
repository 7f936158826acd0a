"""fairseq-preprocess, whose files appear when all of them are complete."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from binarised import Pair, is_binarised

SPLITS = ("train", "valid", "test")


class DataError(RuntimeError):
    """The data cannot be had, or are not what they should be."""


def preprocess(
    texts: Sequence[Path], folder: Path, workers: int, pair: Pair | None = None, flags: Sequence[str] = ()
) -> None:
    """Binarises a text, or a translation pair; its files appear in ``folder``, dictionaries last.

    Args:
        texts: of the splits; of a pair, the paths without ``.LANGUAGE``.
        flags: further ones of fairseq-preprocess.
    """
    for left in folder.glob("part-*"):  # by a killed run
        shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(dir=folder, prefix="part-"))
    try:
        _run(texts, part, workers, pair, flags)
        if not is_binarised(part, SPLITS, pair):
            raise DataError("fairseq-preprocess has left files that are not complete: is the disk full?")
        for path in sorted(part.iterdir(), key=lambda path: path.name.startswith("dict.")):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _run(texts: Sequence[Path], part: Path, workers: int, pair: Pair | None, flags: Sequence[str]) -> None:
    beside_python = Path(sys.executable).parent / "fairseq-preprocess"
    command = [str(beside_python) if beside_python.exists() else "fairseq-preprocess", *flags]
    command += ["--source-lang", pair[0], "--target-lang", pair[1]] if pair else ["--only-source"]
    for split, text in zip(SPLITS, texts):
        command += [f"--{split}pref", str(text)]
    try:
        subprocess.run([*command, "--destdir", str(part), "--workers", str(workers)], check=True)
    except FileNotFoundError as error:
        raise DataError("fairseq-preprocess is missing: pip install 'trime_fairseq[fairseq]'") from error
    except subprocess.CalledProcessError as error:
        raise DataError(f"fairseq-preprocess failed: {error}") from error
