"""``python -m trime_fairseq`` prints the folder to pass to ``--user-dir``."""

import argparse
import sys

from . import __version__
from .files import PACKAGE


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trime_fairseq", description=__doc__)
    parser.add_argument("--version", action="version", version=f"trime_fairseq {__version__}")
    parser.parse_args()
    sys.stdout.write(PACKAGE + "\n")


if __name__ == "__main__":
    main()
