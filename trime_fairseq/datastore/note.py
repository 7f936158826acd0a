"""How far a process is that writes rows of a datastore."""

import os
from dataclasses import dataclass
from typing import ClassVar

from ..files import Description, NotNegative
from .datastore import DatastoreError


@dataclass(frozen=True)
class Note(Description):
    """This process writes the rows [begin, end); those before ``done`` are on the disk."""

    error: ClassVar[type[ValueError]] = DatastoreError
    # Version 0.1.0 wrote these three numbers alone.
    has_version: ClassVar[bool] = False

    begin: NotNegative
    end: NotNegative
    done: NotNegative

    @classmethod
    def read(cls, path: str) -> "Note | None":
        """None if there is none.

        Raises:
            DatastoreError: for a file that is no note.
        """
        if not os.path.exists(path):
            return None
        otherwise = "is no note of the rows that are written: remove it, they will be written again"
        note = cls.load(path, otherwise)
        if not note.begin <= note.done <= note.end:
            raise DatastoreError(f"{path} {otherwise}")
        return note
