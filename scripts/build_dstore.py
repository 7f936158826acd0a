"""Builds the Faiss index of a datastore, from a checkout: the command trime-build-index."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trime_fairseq.cli.build_index import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
