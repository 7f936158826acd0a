"""Evaluates released TrimeLMs and compares with the published numbers.

    python run_pretrained/evaluate.py MODEL ... [--subset valid|test] [--cpu] [-- FLAGS OF fairseq-eval-lm]

Models and numbers stand in models.json. Checkpoints belong into pretrained_models/MODEL/checkpoint_best.pt
and are downloaded where they are missing; data in data-bin/, from get_data.sh. Ends with 1 if a number
differs.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from fetch import FetchError, fetch  # noqa: E402

ADDRESS = "https://nlp.cs.princeton.edu/projects/trime/pretrained_models/{}.zip"
# Of what is printed: half precision moves the fourth decimal of a loss, and the second of a perplexity.
TOLERANCE = {"loss": 0.002, "perplexity": 0.03}


def checkpoint(model: str, folder: Path) -> Path:
    """The model's checkpoint, downloaded and unpacked if it is not there."""
    path = folder / model / "checkpoint_best.pt"
    if not path.exists():
        archive = fetch([ADDRESS.format(model)], folder / f"{model}.zip")
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        try:
            with zipfile.ZipFile(archive) as content:
                (inside,) = (name for name in content.namelist() if name.endswith("checkpoint_best.pt"))
                with content.open(inside) as source, open(part, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
        except (zipfile.BadZipFile, ValueError) as error:
            archive.unlink()
            raise FetchError(f"{archive.name} was no archive with one checkpoint_best.pt: {error}") from error
        part.replace(path)
        archive.unlink()
    return path


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
        f"{name} {measured[name]:.4f}, published {value}"
        for name, value in expected.items()
        # A published number of two decimals stands for all that round to it.
        if abs(measured[name] - value) > max(TOLERANCE[name], 0.006 if round(value, 2) == value else 0.0)
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a name of models.json")
    parser.add_argument("--subset", choices=["valid", "test"], default="valid")
    parser.add_argument("--cpu", action="store_true", help="in float32 on the CPU")
    parser.add_argument("--table", type=Path, default=ROOT / "run_pretrained" / "models.json")
    parser.add_argument("--pretrained-models", type=Path, default=Path("pretrained_models"))
    parser.add_argument("--data-bin", type=Path, default=Path("data-bin"))
    given = sys.argv[1:] if arguments is None else arguments
    end = given.index("--") if "--" in given else len(given)
    args, extra = parser.parse_args(given[:end]), given[end + 1 :]
    table = json.loads(args.table.read_text(encoding="utf-8"))
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
            path = checkpoint(model, args.pretrained_models)
        except FetchError as error:
            sys.exit(f"{error}\nPut the checkpoint into {args.pretrained_models / model}/checkpoint_best.pt")
        flags = [*row["flags"].format(folder=path.parent).split(), *extra]
        if "--use-external" in flags and not (path.parent / "knn.index.ip").exists():
            sys.exit(f"{model} needs its datastore: run `bash scripts/external_memory.sh {path} DATA` first")
        found = evaluate(path, args.data_bin / row["data"], args.subset, flags, args.cpu)
        expected = row["expected"].get(args.subset, {})
        problems = compare(found, expected)
        differ = differ or bool(problems)
        verdict = "; ".join(problems) or ("as published" if expected else row.get("note", "not published"))
        print(f"{model} {args.subset}: loss {found['loss']:.4f}, perplexity {found['ppl']:.2f}: " + verdict)
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
