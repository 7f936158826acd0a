"""The files that fairseq-preprocess writes."""

import os
from typing import Optional

from fairseq import utils
from fairseq.data.indexed_dataset import data_file_path, index_file_path

from ..files import file_hash


def text_files_hash(data: str, subset: str) -> Optional[str]:
    """SHA-256 of a binarised text, its index and its tokens; None if it is not there.

    Args:
        data: the DATA argument; the first of several folders counts.
        subset: ``train``, ``valid``, ...
    """
    text = os.path.join(utils.split_paths(data)[0], subset)
    return file_hash(index_file_path(text), data_file_path(text))
