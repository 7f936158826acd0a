"""Reading and writing the files of indexes."""

import os
from contextlib import suppress
from typing import Any

from ..datastore import DatastoreError
from .config import faiss_error, import_faiss


def write_index(index: Any, path: str) -> None:
    """Writes an index that is there as a whole or not at all."""
    temporary = f"{path}.tmp"
    try:
        import_faiss().write_index(index, temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
    except (RuntimeError, OSError) as error:
        remove(temporary)
        raise DatastoreError(f"cannot write {path} ({faiss_error(error)}): is the disk full?") from error
    os.replace(temporary, path)


def read_index(path: str) -> Any:
    """Raises DatastoreError if the file is no index."""
    try:
        return import_faiss().read_index(path)
    except RuntimeError as error:
        raise DatastoreError(f"cannot read {path} ({faiss_error(error)}): remove it") from error


def remove(path: str) -> None:
    """Removes a file that may not be there."""
    with suppress(FileNotFoundError):
        os.unlink(path)
