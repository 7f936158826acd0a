"""Results that cannot be written where they should be, after hours of work: they are not lost."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress


def write_or_rescue(name: str, path: str, write: Callable[[str], object], otherwise: str) -> None:
    """Writes a result; if that fails, to a new folder among the temporary files, and says so.

    Args:
        name: the flag that named the place, for the message.
        path: where it should be.
        write: writes a file of a path.
        otherwise: says what is left if that fails, too.

    Raises:
        ValueError: if it is not written to ``path``; it says where the result is.
    """
    try:
        write(path)
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    folder = None
    try:
        folder = tempfile.mkdtemp(prefix="trime-")
        place = os.path.join(folder, os.path.basename(path))
        write(place)
    except (OSError, ValueError):
        if folder:
            with suppress(OSError):
                os.rmdir(folder)
        raise ValueError(f"{name} {path}: {reason}; {otherwise}") from None
    raise ValueError(f"{name} {path}: {reason}; the result was written to {place}: move it there") from None
