"""The commands. Each tells its version before it imports what it needs to run."""

import sys
from importlib import import_module

from .. import __version__


def _run(program: str, module: str) -> int:
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"{program} {__version__}\n")
        return 0
    return int(import_module(f".{module}", __name__).main())


def run_bm25() -> int:
    return _run("trime-bm25", "bm25")


def run_build_index() -> int:
    return _run("trime-build-index", "build_index")


def run_compare() -> int:
    return _run("trime-compare", "compare")


def run_datastore() -> int:
    return _run("trime-datastore", "datastore")


def run_tune() -> int:
    return _run("trime-tune", "tune")
