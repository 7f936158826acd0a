"""Numbers and places that are checked before the work begins."""

import os
import shutil

from ..files import check_writable

# Ids of segments are int32.
MOST_SEGMENTS = 2**31 - 1
# Commands or threads that share the work.
MOST_SHARDS = 100_000
MOST_THREADS = 1024
MOST_SEED = 2**32 - 1


def check_number(name: str, number: int, least: int, most: int) -> None:
    """Raises ValueError, naming the argument, for a number outside of [least, most]."""
    if number < least and least == 1:
        raise ValueError(f"`{name}` must be positive, not {number}")
    if number < least:
        raise ValueError(f"`{name}` must not be negative: {number}")
    if number > most:
        raise ValueError(f"`{name}` must be at most {most:,}, not {number:,}")


def check_seed(seed: int) -> None:
    """Raises ValueError for what is no seed."""
    check_number("seed", seed, 0, MOST_SEED)


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
