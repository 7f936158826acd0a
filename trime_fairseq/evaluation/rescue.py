"""Results that cannot be written where they should be, after hours of work; and files that no result may
replace: nothing is lost."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress

from ..files import read_json

# Results have a few thousand bytes.
_LARGEST = 2**20


def refuse_other_content(name: str, path: str) -> None:
    """Whether what a result would replace is one, or nothing that anybody misses.

    Args:
        name: the flag that named the place, for the message.
        path: where the result will be.

    Raises:
        ValueError: if a file of another kind is there: a checkpoint, a dictionary, a manifest.
    """
    if not os.path.isfile(path) or not os.path.getsize(path):
        return
    with open(path, "rb") as file:
        is_json = file.read(64).lstrip()[:1] == b"{"
    if is_json:
        with suppress(ValueError):  # what was cut off is nothing to keep
            content = read_json(path, _LARGEST)
            is_json = "format_version" not in content
    if not is_json:
        raise ValueError(
            f"{name} {path} holds something else than the result of an evaluation, which would be lost: "
            "choose another name, or remove the file"
        )


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
