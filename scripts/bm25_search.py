"""Searches the neighbours of segments, from a checkout: the command trime-bm25 search."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trime_fairseq.cli.bm25 import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
