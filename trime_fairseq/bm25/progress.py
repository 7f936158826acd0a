"""Progress of stages that take minutes to hours."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(*args: Any, **settings: Any) -> Any:
    """tqdm over segments, which writes a line now and then where the output is no terminal."""
    return tqdm(*args, unit=" segments", mininterval=0.2 if sys.stderr.isatty() else 30, **settings)
