"""The binarised text that fairseq-preprocess writes, read without fairseq."""

import os

from ..files import file_hash


def data_folders(data: str) -> list[str]:
    """The folders that a DATA argument names, as fairseq splits them."""
    return data.split("|" if "://" in data else os.pathsep)


def text_files_hash(data: str, subset: str) -> str | None:
    """SHA-256 of a binarised text, its index and its tokens; None if it is not there.

    Args:
        data: the DATA argument; the first of several folders counts.
        subset: ``train``, ``valid``, ...
    """
    text = os.path.join(data_folders(data)[0], subset)
    return file_hash(f"{text}.idx", f"{text}.bin")
