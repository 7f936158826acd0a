"""Trains the translation models of an experiment, and compares ways to decode them. Run again, it continues.

    python reproduce/translation.py reproduce/translation.yaml --text my/pair --out out/pair

reads my/pair.{train,valid,test}.{es,en} (or .xz, .gz), one sentence a line. Every row is tuned on the
validation text and translates the test text. The table is in OUT/results-seedN.md and .json, logs in
OUT/logs.
"""

import argparse
import sys
import time
from pathlib import Path

from translation_experiment import read_translation_experiment
from translation_reproduction import TranslationReproduction


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, help="YAML file: models and rows")
    what = "of PREFIX.train.SOURCE, PREFIX.train.TARGET, and valid and test"
    parser.add_argument("--text", required=True, metavar="PREFIX", help=what)
    what = "folder of everything that is made"
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help=what)
    parser.add_argument("--updates", type=int, help="of every training, instead of those of the file")
    parser.add_argument("--seed", type=int, help="instead of that of the file")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side (default: 1)")
    parser.add_argument(
        "--gpus", nargs="+", default=[], metavar="N", help="GPUs, one a training in turn; default: the CPU"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and run none")
    given = parser.parse_args()
    started = time.time()
    try:
        if given.jobs < 1:
            raise ValueError(f"--jobs must be positive, not {given.jobs}")
        experiment = read_translation_experiment(given.experiment, given.updates, given.seed)
        (given.out / "logs").mkdir(parents=True, exist_ok=True)
        reproduction = TranslationReproduction(
            *(given.out, given.jobs, given.gpus, given.dry_run), experiment=experiment, text=given.text
        )
        reproduction.run()
    except (FileExistsError, NotADirectoryError):
        sys.exit(f"translation: --out {given.out} is no folder: choose another name")
    except (OSError, ValueError) as error:
        sys.exit(f"translation: {error}")
    print(f"\nAll in {given.out}; {(time.time() - started) / 60:.0f} min")


if __name__ == "__main__":
    main()
