"""IWSLT'14 German-English: the text of its files, in the splits of fairseq's prepare-iwslt14.sh."""

import re
import sys
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from parallel_lines import Side, read_lines  # noqa: E402
from preprocess import DataError  # noqa: E402

PAIR = ("de", "en")
MERGES = 10_000
# Every so manieth training pair is for validation.
VALID_EVERY = 23
_TEST_SETS = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
# The training text has lines about each talk. Titles and descriptions are text, these are not.
_NO_TEXT = re.compile("<url>|<talkid>|<keywords>")
_TAG = re.compile("</?(?:title|description)>")
_SEGMENT = re.compile(r'<seg id="[0-9]*">\s*|\s*</seg>\s*')


def train_file(language: str) -> str:
    return f"train.tags.de-en.{language}"


def test_files(language: str) -> list[str]:
    return [f"IWSLT14.{name}.de-en.{language}.xml" for name in _TEST_SETS]


MEMBERS = tuple(name for language in PAIR for name in (train_file(language), *test_files(language)))


def train_lines(path: Path) -> Iterator[str]:
    """The lines of a training file that are text, without tags."""
    for line in read_lines(path):
        if not _NO_TEXT.search(line):
            yield _TAG.sub("", line)


def test_lines(path: Path) -> Iterator[str]:
    """The segments of a test file, with plain apostrophes."""
    for line in read_lines(path):
        if "<seg id" in line:
            yield _SEGMENT.sub("", line).replace("’", "'")


def texts(files: list[Path], expected: int) -> dict[str, tuple[Side, Side]]:
    """Both sides of the training and of the test text.

    Args:
        files: of :data:`MEMBERS`.
        expected: pairs of the test set.

    Raises:
        DataError: if the test set has not so many.
    """
    found = {path.name: path for path in files}

    def train(language: str) -> Side:
        path = found[train_file(language)]
        return str(path), partial(train_lines, path)

    def test(language: str) -> Side:
        paths = [found[name] for name in test_files(language)]

        def lines() -> Iterator[str]:
            return chain.from_iterable(map(test_lines, paths))

        number = sum(1 for _ in lines())
        if number != expected:
            where = ", ".join(map(str, paths))
            raise DataError(f"{where} have {number:,} segments, not {expected:,} as IWSLT'14: remove them")
        return f"the {language} test sets", lines

    return {"train": (train("de"), train("en")), "test": (test("de"), test("en"))}
