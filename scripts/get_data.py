"""Downloads and binarises a data set of the paper. See get_data.sh."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import iwslt14_text
from archives import ArchiveError, unpack
from binarised import Pair, is_binarised
from enwik8 import split_bytes
from fetch import SHA256, FetchError, digest, fetch, note_digest
from preprocess import SPLITS, DataError, preprocess

from trime_fairseq.files import Lock


@dataclass(frozen=True)
class Archive:
    """A file to download, and the addresses that have it."""

    name: str
    addresses: tuple[str, ...]
    sha256: str | None = None


@dataclass(frozen=True)
class DataSet:
    """Any of ``archives`` holds ``members``, of which ``prepare(files, folder, workers)`` makes a text per
    split: of a ``pair``, its path without ``.LANGUAGE``. A member has at most ``most`` bytes."""

    archives: tuple[Archive, ...]
    members: tuple[str, ...]
    prepare: Callable[[list[Path], Path, int], list[Path]]
    most: int = 1 << 30
    pair: Pair | None = None


WIKITEXT_LINES = (1_801_350, 3_760, 4_358)
ENWIK8_BYTES = (90_000_000, 5_000_000, 5_000_000)
IWSLT14_TEST_PAIRS = 6_750


def wikitext(files: list[Path], folder: Path, workers: int) -> list[Path]:
    """As published: <unk>, headings and blank lines stay, a line is a paragraph."""
    for path, expected in zip(files, WIKITEXT_LINES):
        with open(path, "rb") as file:
            found = sum(1 for _ in file)
        if found != expected:
            raise DataError(f"{path} has {found:,} lines, not the {expected:,} of WikiText-103: remove it")
    return files


def enwik8(files: list[Path], folder: Path, workers: int) -> list[Path]:
    """90M / 5M / 5M bytes, one code per token."""
    size = files[0].stat().st_size
    if size != sum(ENWIK8_BYTES):
        raise DataError(f"{files[0]} has {size:,} bytes, not the {sum(ENWIK8_BYTES):,} of enwik8: remove it")
    paths = [folder / f"{split}.txt" for split in SPLITS]
    split_bytes(files[0], list(zip(paths, ENWIK8_BYTES)))
    return paths


def iwslt14(files: list[Path], folder: Path, workers: int) -> list[Path]:
    """As fairseq's prepare-iwslt14.sh does: Moses tokens, lower case, one BPE of 10,000 merges."""
    # Its packages are not needed for the other data sets.
    from translation_text import Limits, subword_texts

    texts = iwslt14_text.texts(files, IWSLT14_TEST_PAIRS)
    every = iwslt14_text.VALID_EVERY
    return subword_texts(
        texts, iwslt14_text.PAIR, folder, iwslt14_text.MERGES, workers, limits=Limits(), every=every
    )


DATA_SETS: dict[str, DataSet] = {
    "wikitext-103": DataSet(
        (
            Archive(
                "wikitext-103-v1.zip",
                (
                    "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-103-v1.zip",
                    "https://wikitext.smerity.com/wikitext-103-v1.zip",
                ),
                "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
            ),
            Archive(
                "wikitext-103.tar.gz",
                ("https://dax-cdn.cdn.appdomain.cloud/dax-wikitext-103/1.0.1/wikitext-103.tar.gz",),
            ),
        ),
        tuple(f"wiki.{split}.tokens" for split in SPLITS),
        wikitext,
        600_000_000,
    ),
    "enwik8": DataSet(
        (
            Archive(
                "enwik8.zip",
                (
                    "https://mattmahoney.net/dc/enwik8.zip",
                    "http://mattmahoney.net/dc/enwik8.zip",
                    "https://data.deepai.org/enwik8.zip",
                ),
                "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
            ),
        ),
        ("enwik8",),
        enwik8,
        sum(ENWIK8_BYTES),
    ),
    "iwslt14": DataSet(
        (
            Archive(
                "de-en.tgz",
                (
                    "https://dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz",
                    "http://dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz",
                    "https://wit3.fbk.eu/archive/2014-01/texts/de/en/de-en.tgz",
                ),
            ),
        ),
        iwslt14_text.MEMBERS,
        iwslt14,
        100_000_000,
        iwslt14_text.PAIR,
    ),
}


def members(name: str, raw: Path, source: Path | None, sha256: str | None = None) -> list[Path]:
    """The unpacked files of a data set: from ``source`` if given, else from ``raw``, else downloaded.

    Args:
        sha256: of the archive, where :data:`DATA_SETS` does not know it.
    """
    data_set = DATA_SETS[name]
    found = find(source or raw, data_set.members)
    if found:
        return found
    archives = [replace(archive, sha256=archive.sha256 or sha256) for archive in data_set.archives]
    targets = [(member, raw / member) for member in data_set.members]
    if source:
        for archive in archives:
            path = source / archive.name
            if path.is_file():
                if archive.sha256 and digest(path) != archive.sha256:
                    raise DataError(f"{path} is not the known {archive.name}: its sha256 is another")
                try:
                    return unpack(path, targets, data_set.most)
                except ArchiveError as error:
                    raise DataError(f"{error}: pass another with --from DIR") from error
        wanted = [*(archive.name for archive in archives), *data_set.members]
        raise DataError(f"--from {source}: none of {', '.join(wanted)} is there")
    failures = []
    for archive in archives:
        path = raw / archive.name
        try:
            files = unpack(fetch(archive.addresses, path, archive.sha256), targets, data_set.most)
        except FetchError as error:
            failures.append(str(error))
        except ArchiveError as error:  # what some address sent was no such archive
            failures.append(str(error))
            path.unlink()
        else:
            if not archive.sha256:
                note_digest(path)
            return files
    raise DataError("\n".join(failures) + "\nGet one of these files by other means and pass --from DIR.")


def find(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of these names in a folder or the folder within it; empty if one is missing."""
    places = [[*folder.glob(name), *folder.glob(f"*/{name}")] for name in names]
    found = [path for paths in places for path in [p for p in paths if p.is_file()][:1]]
    return found if len(found) == len(names) else []


def make(name: str, folder: Path, source: Path | None, workers: int, sha256: str | None) -> bool:
    """Makes the folder of a data set; False if it is there already. Of several commands that are started
    together one makes it, and the others wait."""
    data_set = DATA_SETS[name]
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(f"{folder}.lock")
    if not lock.acquire():
        print(f"another get_data.sh makes {folder}: waiting for it")
        lock.acquire(wait=True)
    try:
        if is_binarised(folder, SPLITS, data_set.pair):
            return False
        raw = folder / "raw_data"
        raw.mkdir(parents=True, exist_ok=True)
        texts = data_set.prepare(members(name, raw, source, sha256), raw, workers)
        preprocess(texts, folder, workers, data_set.pair)
    finally:
        lock.release()
    return True


def whole_number(text: str) -> int:
    """A number of processes."""
    if not text.isdecimal() or not 1 <= int(text[:9]) <= 1024 or len(text) > 4:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 to 1,024")
    return int(text)


def sha256_digits(text: str) -> str:
    """A digest, as sha256sum prints it."""
    if not SHA256.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(f"{text} is no sha256, 64 hexadecimal digits")
    return text.lower()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="get_data.sh", description=__doc__)
    parser.add_argument("data_set", choices=DATA_SETS)
    parser.add_argument("--from", dest="source", type=Path, help="folder with the archive or its files")
    parser.add_argument("--data-bin", type=Path, default=Path("data-bin"), help="folder of binarised data")
    parser.add_argument("--workers", type=whole_number, default=os.cpu_count() or 1)
    what = "of the archive, where get_data.sh knows none; otherwise the first download counts"
    parser.add_argument("--sha256", type=sha256_digits, metavar="HEX", help=what)
    args = parser.parse_args(arguments)
    folder = args.data_bin / args.data_set
    try:
        made = make(args.data_set, folder, args.source, args.workers, args.sha256)
    except DataError as error:
        sys.exit(f"get_data.sh: {error}")
    except (OSError, ValueError) as error:
        sys.exit(f"get_data.sh: {error}: make room there, or choose another folder with --data-bin")
    print(f"written to {folder}" if made else f"{folder} is complete")


if __name__ == "__main__":
    main()
