"""Evaluates released TrimeLMs and translation models, and compares with the published numbers.

    python run_pretrained/evaluate.py MODEL ... [--subset valid|test] [--cpu] [-- FURTHER FLAGS]

Models and numbers stand in models.json. Checkpoints belong into pretrained_models/MODEL/checkpoint_best.pt
and are downloaded where they are missing; data in data-bin/, from get_data.sh. Flags are those of
fairseq-eval-lm, or of fairseq-generate for iwslt14. Ends with 1 if a number differs.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from archives import ArchiveError, unpack  # noqa: E402
from fetch import FetchError, digest, digest_of, fetch, note_digest, noted_at, read_digest  # noqa: E402
from get_data import sha256_digits  # noqa: E402
from measure import compare, language_model, number, translation  # noqa: E402

from trime_fairseq.files import Lock, read_json  # noqa: E402

ADDRESS = "https://nlp.cs.princeton.edu/projects/trime/pretrained_models/{}.zip"
# Weights, two moments of Adam, and as much again.
_MOST_BYTES_OF_PARAMETER = 24
_DIGITS = {"loss": 4, "perplexity": 2, "bleu": 2}
# A Faiss index and the tokens of a datastore.
_MOST_BYTES_OF_MEMORY = 1 << 30


def checkpoint(model: str, folder: Path, sha256: str | None = None, files: Sequence[str] = ()) -> Path:
    """The model's checkpoint, downloaded and unpacked if it is not there. Its digest is noted beside it then,
    and compared from then on; ``sha256`` is one to compare with now.

    Args:
        files: further files of the archive, which are unpacked with a checkpoint, if the archive has them.

    Raises:
        FetchError: if it cannot be had, or is none, or another.
    """
    path = folder / model / "checkpoint_best.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = Lock(str(path.parent / ".lock"))
        lock.acquire(wait=True)  # of several commands one downloads
        try:
            if not path.exists():
                _unpack_checkpoint(model, folder, path, sha256, files)
        finally:
            lock.release()
    wanted = sha256 or read_digest(path)
    if wanted and digest(path) != wanted:
        raise FetchError(
            f"{path} is another file than before: its sha256 is not {wanted}; remove it to download it "
            f"again, or remove {noted_at(path).name} if you have replaced it"
        )
    return path


def _unpack_checkpoint(
    model: str, folder: Path, path: Path, sha256: str | None, files: Sequence[str]
) -> None:
    most = _parameters(model) * _MOST_BYTES_OF_PARAMETER
    archive = fetch([ADDRESS.format(model)], folder / f"{model}.zip", most=most)
    found = []

    def check(file: IO[bytes]) -> None:
        check_checkpoint(file)
        file.seek(0)
        found.append(digest_of(file))
        if sha256 and found[0] != sha256:
            raise ArchiveError(f"the checkpoint in {archive} is another: its sha256 is not {sha256}")

    try:
        # The checkpoint last: if it is there, everything is.
        _unpack_memory(archive, path.parent, files)
        unpack(archive, [("checkpoint_best.pt", path)], most, check)
    except ArchiveError as error:
        archive.unlink()
        raise FetchError(f"{error}; it was removed, run again to download it again") from error
    note_digest(path, found[0])
    note_digest(archive)
    archive.unlink()


def _unpack_memory(archive: Path, folder: Path, files: Sequence[str]) -> None:
    targets = [(f"/{name}", folder / name) for name in files]
    for _, target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        unpack(archive, targets, _MOST_BYTES_OF_MEMORY)
    except ArchiveError as error:
        print(f"{error}: datastore and index must be made", file=sys.stderr)


def _parameters(model: str) -> int:
    """As the name of the model says, such as 247M; a thousand millions where it does not."""
    found = re.search(r"-(\d{1,6})M", model)
    return int(found[1]) * 10**6 if found else 10**9


def check_checkpoint(file: IO[bytes]) -> None:
    """Raises ArchiveError for what is no checkpoint of fairseq's; runs nothing of it."""
    import torch

    import trime_fairseq.models.checkpoints  # noqa: F401  what a checkpoint may hold

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArchiveError(f"the file checkpoint_best.pt is no checkpoint: {reason:.200}") from error
    if not isinstance(state, dict) or "model" not in state or not ("args" in state or "cfg" in state):
        raise ArchiveError("the file checkpoint_best.pt is no checkpoint of fairseq")


def memory_flags(row: dict[str, Any], path: Path) -> list[str]:
    """The flags of a translation model's datastore, which lies beside its checkpoint.

    Raises:
        FileNotFoundError: if it does not.
    """
    metric, store = row["memory"], path.parent / "dstore"
    # Of the authors, and of trime-build-index.
    there = [index for end in ("_", ".") if (index := store / f"knn_index{end}{metric}").exists()]
    if not there:
        raise FileNotFoundError(f"run `bash scripts/translation_memory.sh {path} DATA {metric}` first")
    flags = ["--use-knn-datastore", "--dstore-filename", f"{store}/", "--indexfile", str(there[0])]
    if not (store / "manifest.json").exists():  # the authors'
        flags += ["--dstore-size", str(row["rows"]), "--dstore-fp16", "--faiss-metric-type", metric]
    return flags


def read_table(path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The models and what is known of them, checked."""
    try:
        table = read_json(str(path))
    except (OSError, ValueError) as error:
        parser.error(f"--table {path}: {error}")
    kinds = {"data": str, "flags": str, "expected": dict}
    optional = {"checkpoint": str, "files": list, "hint": str, "memory": str, "note": str, "rows": int}
    for model, row in table.items() if isinstance(table, dict) else [("", None)]:
        if not isinstance(row, dict) or not all(isinstance(row.get(name), kinds[name]) for name in kinds):
            parser.error(f"--table {path}: {model!r} needs data and flags, which are texts, and expected")
        wrong = [name for name, kind in optional.items() if not isinstance(row.get(name, kind()), kind)]
        if wrong or ("memory" in row) > ("rows" in row):
            what = f"{wrong[0]} is of the wrong kind" if wrong else "memory needs rows"
            parser.error(f"--table {path}: {model!r}: {what}")
    return dict(table)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a name of models.json")
    what = "default: valid; test for models of which only that was published"
    parser.add_argument("--subset", choices=["valid", "test"], help=what)
    parser.add_argument("--cpu", action="store_true", help="in float32 on the CPU")
    parser.add_argument("--table", type=Path, default=ROOT / "run_pretrained" / "models.json")
    parser.add_argument("--pretrained-models", type=Path, default=Path("pretrained_models"))
    parser.add_argument("--data-bin", type=Path, default=Path("data-bin"))
    what = "of the only MODEL's checkpoint_best.pt; without it, the first download counts"
    parser.add_argument("--sha256", type=sha256_digits, metavar="HEX", help=what)
    given = sys.argv[1:] if arguments is None else arguments
    end = given.index("--") if "--" in given else len(given)
    args, extra = parser.parse_args(given[:end]), given[end + 1 :]
    table = read_table(args.table, parser)
    if args.sha256 and len(args.models) > 1:
        parser.error("--sha256 is that of one MODEL: name one")
    unknown = [model for model in args.models if model not in table]
    if unknown:
        parser.error(f"unknown model {unknown[0]}: one of {', '.join(table)}")
    missing = {table[model]["data"] for model in args.models} - {
        path.parent.name for path in args.data_bin.glob("*/dict*.txt")
    }
    if missing:
        parser.error(f"{args.data_bin} has no {min(missing)}: run `bash get_data.sh {min(missing)}` first")
    differ = False
    for model in args.models:
        differ = not run(model, table[model], args, extra) or differ
    return int(differ)


def run(model: str, row: dict[str, Any], args: argparse.Namespace, extra: list[str]) -> bool:
    """Evaluates a model and prints a line; whether all is as published."""
    expected = row["expected"]
    subset = args.subset or ("valid" if "valid" in expected or not expected else min(expected))
    expected, data = expected.get(subset, {}), args.data_bin / row["data"]
    place = row.get("checkpoint", model)
    try:
        path = checkpoint(place, args.pretrained_models, args.sha256, row.get("files", ()))
    except (FetchError, OSError, ValueError) as error:
        sys.exit(f"{error}\nPut the checkpoint into {args.pretrained_models / place}/checkpoint_best.pt")
    flags = row["flags"].format(folder=path.parent).split()
    if "--use-external" in flags and not (path.parent / "knn.index.ip").exists():
        sys.exit(f"{model} needs its datastore: run `bash scripts/external_memory.sh {path} DATA` first")
    try:
        flags += [*(memory_flags(row, path) if "memory" in row else []), *extra]
    except FileNotFoundError as error:
        sys.exit(f"{model} needs its datastore: {error}")
    measure = translation if row.get("translation") else language_model
    try:
        measured = measure(path, data, subset, flags, args.cpu)
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        sys.exit(f"{model} could not be evaluated, see above: {error}" + row.get("hint", ""))
    problems = compare(measured, expected)
    verdict = "; ".join(problems) or ("as published" if expected else row.get("note", "not published"))
    numbers = ", ".join(f"{name} {number(value, _DIGITS[name])}" for name, value in measured.items())
    print(f"{model} {subset}: {numbers}: {verdict}")
    return not problems


if __name__ == "__main__":
    sys.exit(main())
