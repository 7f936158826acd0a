"""Checksums of large files, with a progress bar."""

import os

from tqdm import tqdm

from ..files import file_checksum
from ..files.hashes import Visitor

# From this size on it takes a second or more.
_LARGE = 2**30


def checksum_with_progress(path: str, visit: Visitor | None = None) -> str:
    """As :func:`trime_fairseq.files.file_checksum`; a large file has a bar on stderr."""
    size = os.path.getsize(path)
    name = os.path.basename(path)
    with tqdm(total=size, unit="B", unit_scale=True, desc=f"checking {name}", disable=size < _LARGE) as bar:
        return file_checksum(path, visit=visit, progress=bar.update)
