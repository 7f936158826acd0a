"""What the files of published tools tell of their types, where no manifest does."""

import os

import numpy as np

from .layout import is_folder, keys_path, values_path

# Numbers that are looked at. Among those of float32 one in 64 is no finite number if read as two of float16.
_NUMBERS = 2**15


def likely_key_dtype(prefix: str, dimension: int | None = None) -> str:
    """``float16`` or ``float32``: by the name of the keys; in a folder, which has one name for both, by their
    size where ``dimension`` is known, or by their first numbers."""
    path = keys_path(prefix, "float16")
    if not os.path.isfile(path):
        return "float32"
    if not is_folder(prefix):
        return "float16"
    if dimension is not None and os.path.isfile(values_path(prefix)):
        rows = os.path.getsize(values_path(prefix)) // 8
        if problem_of_size(path, "float32", rows, dimension):
            return "float16"
        if problem_of_size(path, "float16", rows, dimension):
            return "float32"
    numbers = np.fromfile(path, dtype="<f2", count=_NUMBERS)
    return "float16" if np.isfinite(numbers).all() else "float32"


def likely_value_dtype(prefix: str, key_dtype: str, rows: int | None, dimension: int | None) -> str:
    """The type of the values, by the sizes of files: kNN-LM's own are int16 where its keys are float16. In a
    folder they are int64, as kNN-MT writes them."""
    if is_folder(prefix):
        return "int64"
    keys = keys_path(prefix, key_dtype)
    if rows is None and dimension and os.path.isfile(keys):
        rows, rest = divmod(os.path.getsize(keys), dimension * np.dtype(key_dtype).itemsize)
        rows = None if rest else rows
    path = values_path(prefix)
    if rows is None or not os.path.isfile(path):
        return "int64"
    return {2 * rows: "int16", 4 * rows: "int32"}.get(os.path.getsize(path), "int64")


def problem_of_size(path: str, dtype: str, rows: int, dimension: int | None) -> str | None:
    """What is wrong with keys of ``dtype`` whose size says that they are of the other type, if it does."""
    if dimension is None:
        return None
    other, ratio = ("float16", 0.5) if dtype == "float32" else ("float32", 2)
    if os.path.getsize(path) != rows * dimension * np.dtype(dtype).itemsize * ratio:
        return None
    fix = "pass" if other == "float16" else "leave out"
    return f"has the size of {other} keys of dimension {dimension}: {fix} `fp16`"
