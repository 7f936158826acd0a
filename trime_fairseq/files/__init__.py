"""Files that are there as a whole or not at all, hashes, locks, and JSON files that describe other files."""

import os

from .description import FORMAT_VERSION, Description, Differences, NotNegative, Positive
from .hashes import file_checksum, file_hash, symbols_hash, text_hash
from .json_file import read_json, without_infinity, write_json
from .lock import Lock
from .places import kind_of, open_regular, written_place
from .whole import check_writable, new_temporary, remove_leftovers, whole_file

# The folder of this package, which ``--user-dir`` names.
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def modification_time(path: str | None) -> float | None:
    """Seconds since 1970; None for what is not a local file."""
    return os.path.getmtime(path) if path and os.path.exists(path) else None


__all__ = [
    "FORMAT_VERSION",
    "PACKAGE",
    "Description",
    "Differences",
    "Lock",
    "NotNegative",
    "Positive",
    "check_writable",
    "file_checksum",
    "file_hash",
    "kind_of",
    "modification_time",
    "new_temporary",
    "open_regular",
    "read_json",
    "remove_leftovers",
    "symbols_hash",
    "text_hash",
    "whole_file",
    "without_infinity",
    "write_json",
    "written_place",
]
