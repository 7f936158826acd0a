"""Trains the models of an experiment and compares them, baselines included. Run again, it continues.

    python reproduce/run.py reproduce/words.yaml --text my/words. --out out/words

reads my/words.train.txt, my/words.valid.txt and my/words.test.txt (or .txt.xz): any text whose words are
separated by spaces. Tables and plots are in OUT/NAME of each comparison, logs in OUT/logs.
"""

import argparse
import sys
import time
from pathlib import Path

from experiment import read_experiment
from reproduction import Reproduction


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, help="YAML file: models and tables")
    parser.add_argument(
        "--text", required=True, metavar="PREFIX", help="of PREFIXtrain.txt, PREFIXvalid.txt, PREFIXtest.txt"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of everything that is made"
    )
    parser.add_argument("--tables", nargs="+", default=[], metavar="NAME", help="of the file; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="instead of those of the file")
    parser.add_argument("--updates", type=int, help="of every training, instead of those of the file")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side (default: 2)")
    parser.add_argument(
        "--gpus", nargs="+", default=[], metavar="N", help="GPUs, one a training in turn; default: the CPU"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and run none")
    given = parser.parse_args()
    started = time.time()
    try:
        if given.jobs < 1:
            raise ValueError(f"--jobs must be positive, not {given.jobs}")
        experiment = read_experiment(given.experiment, given.tables, given.seeds, given.updates)
        (given.out / "logs").mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        sys.exit(f"reproduce: --out {given.out} is no folder: choose another name")
    except (OSError, ValueError) as error:
        sys.exit(f"reproduce: {error}")
    jobs = 1 if given.dry_run else given.jobs
    reproduction = Reproduction(
        *(given.out, jobs, given.gpus, given.dry_run), experiment=experiment, text=given.text
    )
    reproduction.run()
    print(f"\nAll in {given.out}; {(time.time() - started) / 60:.0f} min")


if __name__ == "__main__":
    main()
