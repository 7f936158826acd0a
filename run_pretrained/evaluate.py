"""Evaluates released TrimeLMs and compares with the published numbers.

    python run_pretrained/evaluate.py MODEL ... [--subset valid|test] [--cpu] [-- FLAGS OF fairseq-eval-lm]

Models and numbers stand in models.json. Checkpoints belong into pretrained_models/MODEL/checkpoint_best.pt
and are downloaded where they are missing; data in data-bin/, from get_data.sh. Ends with 1 if a number
differs.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from archives import ArchiveError, unpack  # noqa: E402
from fetch import FetchError, digest, digest_of, fetch, note_digest, noted_at, read_digest  # noqa: E402
from get_data import sha256_digits  # noqa: E402

from trime_fairseq.files import Lock, read_json  # noqa: E402

ADDRESS = "https://nlp.cs.princeton.edu/projects/trime/pretrained_models/{}.zip"
# Weights, two moments of Adam, and as much again.
_MOST_BYTES_OF_PARAMETER = 24
# Of what is printed: half precision moves the fourth decimal of a loss, and the second of a perplexity.
TOLERANCE = {"loss": 0.002, "perplexity": 0.03}


def checkpoint(model: str, folder: Path, sha256: str | None = None) -> Path:
    """The model's checkpoint, downloaded and unpacked if it is not there. Its digest is noted beside it then,
    and compared from then on; ``sha256`` is one to compare with now.

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
                _unpack_checkpoint(model, folder, path, sha256)
        finally:
            lock.release()
    wanted = sha256 or read_digest(path)
    if wanted and digest(path) != wanted:
        raise FetchError(
            f"{path} is another file than before: its sha256 is not {wanted}; remove it to download it "
            f"again, or remove {noted_at(path).name} if you have replaced it"
        )
    return path


def _unpack_checkpoint(model: str, folder: Path, path: Path, sha256: str | None) -> None:
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
        unpack(archive, [("checkpoint_best.pt", path)], most, check)
    except ArchiveError as error:
        archive.unlink()
        raise FetchError(f"{error}; it was removed, run again to download it again") from error
    note_digest(path, found[0])
    note_digest(archive)
    archive.unlink()


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


def evaluate(path: Path, data: Path, subset: str, flags: list[str], cpu: bool) -> dict[str, Any]:
    """The result of ``fairseq-eval-lm`` on one device, as its JSON file says it."""
    beside_python = Path(sys.executable).parent / "fairseq-eval-lm"
    command = [str(beside_python) if beside_python.exists() else "fairseq-eval-lm", str(data)]
    command += ["--user-dir", str(ROOT / "trime_fairseq"), "--task", "trime_language_modeling"]
    command += ["--path", str(path), "--gen-subset", subset, "--softmax-batch", "1024"]
    command += ["--distributed-world-size", "1", "--cpu" if cpu else "--fp16", *flags]
    print(" ".join(command), file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        subprocess.run([*command, "--eval-file", str(result)], check=True)
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def compare(found: dict[str, Any], expected: dict[str, float]) -> list[str]:
    """What differs, in words."""
    measured = {"loss": found["loss"], "perplexity": found["ppl"]}
    return [
        f"{name} {_number(measured[name])}, published {value}"
        for name, value in expected.items()
        # A published number of two decimals stands for all that round to it.
        if measured[name] is None
        or abs(measured[name] - value) > max(TOLERANCE[name], 0.006 if round(value, 2) == value else 0.0)
    ]


def _number(value: float | None, digits: int = 4) -> str:
    return "not finite" if value is None else f"{value:.{digits}f}"


def read_table(path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The models and what is known of them, checked."""
    try:
        table = read_json(str(path))
    except (OSError, ValueError) as error:
        parser.error(f"--table {path}: {error}")
    kinds = {"data": str, "flags": str, "expected": dict}
    for model, row in table.items() if isinstance(table, dict) else [("", None)]:
        if not isinstance(row, dict) or not all(isinstance(row.get(name), kinds[name]) for name in kinds):
            parser.error(f"--table {path}: {model!r} needs data and flags, which are texts, and expected")
    return dict(table)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a name of models.json")
    parser.add_argument("--subset", choices=["valid", "test"], default="valid")
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
        path.parent.name for path in args.data_bin.glob("*/dict.txt")
    }
    if missing:
        parser.error(f"{args.data_bin} has no {min(missing)}: run `bash get_data.sh {min(missing)}` first")
    differ = False
    for model in args.models:
        row = table[model]
        try:
            path = checkpoint(model, args.pretrained_models, args.sha256)
        except (FetchError, OSError, ValueError) as error:
            sys.exit(f"{error}\nPut the checkpoint into {args.pretrained_models / model}/checkpoint_best.pt")
        flags = [*row["flags"].format(folder=path.parent).split(), *extra]
        if "--use-external" in flags and not (path.parent / "knn.index.ip").exists():
            sys.exit(f"{model} needs its datastore: run `bash scripts/external_memory.sh {path} DATA` first")
        try:
            found = evaluate(path, args.data_bin / row["data"], args.subset, flags, args.cpu)
        except (subprocess.CalledProcessError, OSError, ValueError) as error:
            sys.exit(f"{model} could not be evaluated, see above: {error}")
        expected = row["expected"].get(args.subset, {})
        problems = compare(found, expected)
        differ = differ or bool(problems)
        verdict = "; ".join(problems) or ("as published" if expected else row.get("note", "not published"))
        numbers = f"loss {_number(found['loss'])}, perplexity {_number(found['ppl'], 2)}"
        print(f"{model} {args.subset}: {numbers}: {verdict}")
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
