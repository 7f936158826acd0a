"""Downloads and binarises a data set of the paper. See get_data.sh."""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from enwik8 import split_bytes
from fetch import FetchError, digest, fetch

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Archive:
    """A file to download, and the addresses that have it."""

    name: str
    addresses: tuple[str, ...]
    sha256: str | None = None


@dataclass(frozen=True)
class DataSet:
    """Any of ``archives`` holds ``members``, of which ``prepare(files, folder)`` makes a text per split."""

    archives: tuple[Archive, ...]
    members: tuple[str, ...]
    prepare: Callable[[list[Path], Path], list[Path]]


class DataError(RuntimeError):
    """The data cannot be had, or are not what they should be."""


WIKITEXT_LINES = (1_801_350, 3_760, 4_358)
ENWIK8_BYTES = (90_000_000, 5_000_000, 5_000_000)


def wikitext(files: list[Path], folder: Path) -> list[Path]:
    """As published: <unk>, headings and blank lines stay, a line is a paragraph."""
    for path, expected in zip(files, WIKITEXT_LINES):
        with open(path, "rb") as file:
            found = sum(1 for _ in file)
        if found != expected:
            raise DataError(f"{path} has {found:,} lines, not the {expected:,} of WikiText-103")
    return files


def enwik8(files: list[Path], folder: Path) -> list[Path]:
    """90M / 5M / 5M bytes, one code per token."""
    size = files[0].stat().st_size
    if size != sum(ENWIK8_BYTES):
        raise DataError(f"{files[0]} has {size:,} bytes, not the {sum(ENWIK8_BYTES):,} of enwik8")
    paths = [folder / f"{split}.txt" for split in SPLITS]
    split_bytes(files[0], list(zip(paths, ENWIK8_BYTES)))
    return paths


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
    ),
}


def members(name: str, raw: Path, source: Path | None) -> list[Path]:
    """The unpacked files of a data set: from ``source`` if given, else from ``raw``, else downloaded."""
    data_set = DATA_SETS[name]
    found = find(source or raw, data_set.members)
    if found:
        return found
    if source:
        for archive in data_set.archives:
            path = source / archive.name
            if path.is_file():
                if archive.sha256 and digest(path) != archive.sha256:
                    raise DataError(f"{path} is not the known {archive.name}: its sha256 is another")
                return unpack(path, raw, data_set.members)
        wanted = [*(archive.name for archive in data_set.archives), *data_set.members]
        raise DataError(f"--from {source}: none of {', '.join(wanted)} is there")
    failures = []
    for archive in data_set.archives:
        path = raw / archive.name
        try:
            return unpack(fetch(archive.addresses, path, archive.sha256), raw, data_set.members)
        except FetchError as error:
            failures.append(str(error))
        except DataError as error:  # what some address sent was no such archive
            failures.append(str(error))
            path.unlink()
    raise DataError("\n".join(failures) + "\nGet one of these files by other means and pass --from DIR.")


def find(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of these names in a folder or the folder within it; empty if one is missing."""
    places = [[*folder.glob(name), *folder.glob(f"*/{name}")] for name in names]
    found = [path for paths in places for path in [p for p in paths if p.is_file()][:1]]
    return found if len(found) == len(names) else []


def unpack(archive: Path, folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The members of these names, without their folders; each appears in ``folder`` when it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _unpack(archive, folder, names)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{archive} is no complete archive: {error}") from error


def _unpack(archive: Path, folder: Path, names: tuple[str, ...]) -> list[Path]:
    zipped = archive.suffix == ".zip"
    with zipfile.ZipFile(archive) if zipped else tarfile.open(archive) as content:
        inside = {Path(entry).name: entry for entry in (content.namelist() if zipped else content.getnames())}
        for name in names:
            if name not in inside:
                raise DataError(f"{archive} holds no {name}: pass another with --from DIR")
            part = folder / f"{name}.part"
            opened = content.open(inside[name]) if zipped else content.extractfile(inside[name])
            with opened as source, open(part, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            os.replace(part, folder / name)
    return [folder / name for name in names]


def binarised(folder: Path) -> bool:
    wanted = [f"{split}.{kind}" for split in SPLITS for kind in ("bin", "idx")]
    return all((folder / name).exists() for name in [*wanted, "dict.txt"])


def preprocess(texts: list[Path], folder: Path, workers: int) -> None:
    """fairseq-preprocess; its files appear in ``folder`` when all are complete, the dictionary last."""
    part = folder / "part"
    shutil.rmtree(part, ignore_errors=True)
    beside_python = Path(sys.executable).parent / "fairseq-preprocess"
    command = [str(beside_python) if beside_python.exists() else "fairseq-preprocess", "--only-source"]
    for split, text in zip(SPLITS, texts):
        command += [f"--{split}pref", str(text)]
    try:
        subprocess.run([*command, "--destdir", str(part), "--workers", str(workers)], check=True)
    except FileNotFoundError as error:
        raise DataError("fairseq-preprocess is missing: pip install 'trime_fairseq[fairseq]'") from error
    except subprocess.CalledProcessError as error:
        raise DataError(f"fairseq-preprocess failed: {error}") from error
    for path in sorted(part.iterdir(), key=lambda path: path.name == "dict.txt"):
        os.replace(path, folder / path.name)
    part.rmdir()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="get_data.sh", description=__doc__)
    parser.add_argument("data_set", choices=DATA_SETS)
    parser.add_argument("--from", dest="source", type=Path, help="folder with the archive or its files")
    parser.add_argument("--data-bin", type=Path, default=Path("data-bin"), help="folder of binarised data")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    folder = args.data_bin / args.data_set
    if binarised(folder):
        print(f"{folder} is complete")
        return
    raw = folder / "raw_data"
    try:
        files = members(args.data_set, raw, args.source)
        raw.mkdir(parents=True, exist_ok=True)
        texts = DATA_SETS[args.data_set].prepare(files, raw)
        preprocess(texts, folder, args.workers)
    except DataError as error:
        sys.exit(f"get_data.sh: {error}")
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
