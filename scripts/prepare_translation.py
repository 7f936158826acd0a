"""Prepares the text of a translation pair for fairseq: Moses tokens, lower case, one BPE, binarised.

    python scripts/prepare_translation.py PREFIX --source-lang es --target-lang en --bpe 8000 --destdir DIR

reads PREFIX.{train,valid,test}.{es,en}, one sentence a line in UTF-8, which may be compressed (.xz, .gz), and
writes DIR. Tokens, BPE codes and subwords stay in DIR/text. Run again it continues where it was.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from binarised import Pair, is_binarised  # noqa: E402
from parallel_lines import file_side  # noqa: E402
from preprocess import SPLITS, DataError, preprocess  # noqa: E402
from translation_text import Limits, subword_texts  # noqa: E402

from trime_fairseq.files import Lock  # noqa: E402
from trime_fairseq.files.description import Description, Positive  # noqa: E402
from trime_fairseq.files.hashes import file_hash  # noqa: E402

_NOTED_ONLY = ("sacremoses", "subword_nmt", "format_version")


@dataclass(frozen=True)
class Settings(Description):
    """What a folder was made of. The versions of tools are noted, not compared."""

    error: ClassVar[type[ValueError]] = ValueError

    source_lang: str
    target_lang: str
    bpe: Positive
    keep_case: bool
    max_length: Positive
    max_ratio: float
    joined_dictionary: bool
    text: str
    sacremoses: str
    subword_nmt: str


def find_texts(prefix: str, pair: Pair) -> dict[str, tuple[Path, Path]]:
    """The files of each split.

    Raises:
        DataError: naming what is missing, or there twice.
    """

    def find(split: str, language: str) -> Path:
        plain = f"{prefix}.{split}.{language}"
        found = [path for end in ("", ".xz", ".gz") if (path := Path(plain + end)).is_file()]
        if len(found) != 1:
            some = " and ".join(map(str, found))
            raise DataError(f"{some}: leave one" if some else f"{plain} is not there, nor {plain}.xz or .gz")
        return found[0]

    return {split: (find(split, pair[0]), find(split, pair[1])) for split in SPLITS}


def check_folder(folder: Path, settings: Settings) -> None:
    """Notes the settings; raises DataError where the folder was made with others."""
    path = folder / "text" / "settings.json"
    if not path.exists():
        if any(folder.glob("dict.*")):
            raise DataError(f"{folder} holds other data: choose another --destdir")
        path.parent.mkdir(parents=True, exist_ok=True)
        settings.save(str(path))
        return
    before = Settings.load(str(path), "is no file of prepare_translation.py: remove its folder")
    names = [name for name in vars(settings) if name not in _NOTED_ONLY]
    differences = before.differences(settings, names)
    if "text" in differences:
        differences["text"] = "has changed"
    if differences:
        raise DataError(
            f"{folder} was made with other settings ({differences}): remove it, or choose another --destdir"
        )


def make(args: argparse.Namespace) -> bool:
    """Makes the folder; False if it is complete already."""
    pair = (args.source_lang, args.target_lang)
    texts = find_texts(args.prefix, pair)
    args.destdir.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(f"{args.destdir}.lock")
    if not lock.acquire():
        print(f"another command makes {args.destdir}: waiting for it")
        lock.acquire(wait=True)
    try:
        hashes = file_hash(*(str(path) for paths in texts.values() for path in paths))
        settings = Settings(
            **{name: getattr(args, name) for name in ("source_lang", "target_lang", "bpe", "keep_case")},
            **{name: getattr(args, name) for name in ("max_length", "max_ratio", "joined_dictionary")},
            text=str(hashes),
            sacremoses=version("sacremoses"),
            subword_nmt=version("subword-nmt"),
        )
        check_folder(args.destdir, settings)
        if is_binarised(args.destdir, SPLITS, pair):
            return False
        subwords = subword_texts(
            {split: (file_side(source), file_side(target)) for split, (source, target) in texts.items()},
            pair,
            args.destdir / "text",
            args.bpe,
            args.workers,
            keep_case=args.keep_case,
            limits=Limits(longest=args.max_length, ratio=args.max_ratio),
        )
        flags = ["--joined-dictionary"] if args.joined_dictionary else []
        preprocess(subwords, args.destdir, args.workers, pair, flags)
    finally:
        lock.release()
    return True


def whole_number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) or len(text) > 7:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 to 9,999,999")
    return int(text)


def processes(text: str) -> int:
    if whole_number(text) > 1024:
        raise argparse.ArgumentTypeError(f"{text} is more than 1,024")
    return int(text)


def ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 1")
    return value


def language(text: str) -> str:
    if not text.isalnum() or not text.isascii():
        raise argparse.ArgumentTypeError(f"{text} is no language code such as de")
    return text


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="prepare_translation.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("prefix", metavar="PREFIX", help="of the files")
    parser.add_argument("--source-lang", type=language, required=True, metavar="L", help="such as de")
    parser.add_argument("--target-lang", type=language, required=True, metavar="L", help="such as en")
    parser.add_argument("--destdir", type=Path, required=True, metavar="DIR", help="folder to write")
    what = "merges of the BPE of both languages (default: %(default)s)"
    parser.add_argument("--bpe", type=whole_number, default=10_000, metavar="N", help=what)
    parser.add_argument("--keep-case", action="store_true", help="do not change to lower case")
    what = "leave out training pairs of more tokens on a side (default: %(default)s)"
    parser.add_argument("--max-length", type=whole_number, default=175, metavar="N", help=what)
    what = "leave out training pairs with a side so many times longer (default: %(default)s)"
    parser.add_argument("--max-ratio", type=ratio, default=1.5, metavar="R", help=what)
    what = "one dictionary for both languages, for --share-all-embeddings"
    parser.add_argument("--joined-dictionary", action="store_true", help=what)
    parser.add_argument("--workers", type=processes, default=os.cpu_count() or 1, metavar="N")
    args = parser.parse_args(arguments)
    if args.source_lang == args.target_lang:
        parser.error("--source-lang and --target-lang are the same")
    try:
        made = make(args)
    except (DataError, OSError, ValueError) as error:
        sys.exit(f"prepare_translation.py: {error}")
    print(f"written to {args.destdir}" if made else f"{args.destdir} is complete")


if __name__ == "__main__":
    main()
