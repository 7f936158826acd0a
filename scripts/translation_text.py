"""Text of a translation pair as models read it: Moses tokens, lower case, subwords of one BPE."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

try:
    from sacremoses import MosesTokenizer
    from subword_nmt.apply_bpe import BPE
    from subword_nmt.learn_bpe import learn_bpe
    from tqdm import tqdm
except ModuleNotFoundError as error:
    sys.exit(f"{sys.executable} lacks the package {error.name}: pip install 'trime_fairseq[mt]'")

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from binarised import Pair  # noqa: E402
from parallel_lines import Side, change_all, read_lines  # noqa: E402
from preprocess import SPLITS, DataError  # noqa: E402

from trime_fairseq.files import whole_file  # noqa: E402


@dataclass(frozen=True)
class Limits:
    """What training pairs may be: of ``shortest`` to ``longest`` tokens a side, neither side longer than
    ``ratio`` times the other."""

    shortest: int = 1
    longest: int = 175
    ratio: float = 1.5

    def allow(self, source: str, target: str) -> bool:
        lengths = sorted((len(source.split()), len(target.split())))
        return self.shortest <= lengths[0] and lengths[1] <= min(self.longest, self.ratio * lengths[0])


Line = str | None


def tokenizer(pair: Pair, keep_case: bool) -> Callable[[tuple[Line, Line]], tuple[Line, Line]]:
    """From lines of both sides to Moses tokens, with XML's characters escaped, separated by single spaces.
    None, where a side has ended, stays None."""
    sides = [MosesTokenizer(lang=language) for language in pair]

    def tokenize(moses: MosesTokenizer, line: Line) -> Line:
        if line is None:
            return None
        tokens = moses.tokenize(line, return_str=True)
        return " ".join((tokens if keep_case else tokens.lower()).split())

    return lambda lines: (tokenize(sides[0], lines[0]), tokenize(sides[1], lines[1]))


def segmenter(codes: Path) -> Callable[[str], str]:
    """Subwords, where all but the last of a word end in ``@@``."""
    with open(codes, encoding="utf-8") as file:
        bpe = BPE(file)
    return lambda line: bpe.process_line(line) if line else line


def tokenize_pair(
    sides: tuple[Side, Side],
    pair: Pair,
    paths: list[tuple[Path, Path]],
    workers: int,
    *,
    keep_case: bool = False,
    limits: Limits | None = None,
    every: int = 0,
) -> None:
    """Writes the tokens of a text, both sides.

    Args:
        paths: where to; with ``every``, every so manieth pair that is kept goes to the second place.
        limits: of the pairs that are kept; all if None.

    Raises:
        DataError: if the sides have not the same number of lines, or no pair is kept.
    """
    names = " and ".join(name for name, _ in sides)
    kept = read = 0
    with ExitStack() as opened:
        files = [[opened.enter_context(whole_file(str(path))) for path in both] for both in paths]
        lines = zip_longest(*(read_side() for _, read_side in sides))
        tokens = change_all(partial(tokenizer, pair, keep_case), lines, workers)
        for read, (source, target) in enumerate(_progress(tokens, "tokens", "pairs"), 1):
            if source is None or target is None:
                raise DataError(f"{names} have not the same number of lines: one ends after {read - 1:,}")
            if limits and not limits.allow(source, target):
                continue
            kept += 1
            for file, line in zip(files[bool(every) and kept % every == 0], (source, target)):
                file.write(line + "\n")
        if not kept:
            raise DataError(f"{names}: {f'none of {read:,} pairs is kept' if read else 'they are empty'}")
    print(f"{names}: {kept:,} of {read:,} pairs" + (f", every {every}th for validation" if every else ""))


def _progress(items: Iterator[Any], what: str, unit: str) -> Iterable[Any]:
    return tqdm(items, desc=what, unit=f" {unit}", mininterval=1)


def learn_codes(texts: tuple[Path, Path], codes: Path, merges: int) -> None:
    """Learns one BPE from tokens of both languages."""
    with whole_file(str(codes)) as file:
        learn_bpe(chain.from_iterable(map(read_lines, texts)), file, merges)


def segment(tokens: Path, subwords: Path, codes: Path, workers: int) -> None:
    """Writes a text in subwords."""
    with whole_file(str(subwords)) as file:
        lines = change_all(partial(segmenter, codes), read_lines(tokens), workers)
        for line in _progress(lines, subwords.name, "lines"):
            file.write(line + "\n")


def subword_texts(
    texts: dict[str, tuple[Side, Side]],
    pair: Pair,
    folder: Path,
    merges: int,
    workers: int,
    *,
    keep_case: bool = False,
    limits: Limits,
    every: int = 0,
) -> list[Path]:
    """Tokens, BPE codes and subwords of all splits; what is there already is kept.

    Args:
        texts: of ``train``, ``test`` and, unless ``every`` takes it from the training text, ``valid``.
        folder: where ``SPLIT.tokenized.LANGUAGE``, ``codes`` and ``SPLIT.LANGUAGE`` are written.
        limits: of training pairs.

    Returns:
        For each of :data:`preprocess.SPLITS` the path of its subwords, without ``.LANGUAGE``.
    """

    def both(name: str) -> tuple[Path, Path]:
        return folder / f"{name}.{pair[0]}", folder / f"{name}.{pair[1]}"

    for split, sides in texts.items():
        train = split == "train"
        places = [both(f"{split}.tokenized")] + ([both("valid.tokenized")] if train and every else [])
        if not all(path.exists() for place in places for path in place):
            kept = limits if train else None
            tokenize_pair(
                sides, pair, places, workers, keep_case=keep_case, limits=kept, every=every if train else 0
            )
    codes = folder / "codes"
    if not codes.exists():
        learn_codes(both("train.tokenized"), codes, merges)
    for split in SPLITS:
        for tokens, subwords in zip(both(f"{split}.tokenized"), both(split)):
            if not subwords.exists():
                segment(tokens, subwords, codes, workers)
    return [folder / split for split in SPLITS]
