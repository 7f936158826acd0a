"""Bounds of numbers, and places, that are checked before the work begins."""

import os
import shutil

from ..files import check_writable
from ..flags.bounds import Bounds

# Ids of segments are int32.
MOST_SEGMENTS = 2**31 - 1
# Commands or threads that share the work.
MOST_SHARDS = 100_000
THREADS = Bounds(1, 1024)


def check_folder(name: str, folder: str, example: str, needed: int = 0) -> None:
    """Makes a folder that results are written into.

    Args:
        name: the argument that holds it.
        example: a file in it.
        needed: bytes that will be written.

    Raises:
        ValueError: naming the argument, if it cannot be written or has no room.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ValueError(f"`{name}` {folder} is no folder: choose another name")
    check_writable(f"`{name}`", os.path.join(folder, example))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"`{name}` {folder}: {needed:,} bytes are to be written, and the disk has {free:,}: make room, "
            "or choose another folder"
        )
