"""``--output-segments-to-file``: the training segments or target sentences as text, and no training."""

import logging
from collections.abc import Callable
from typing import Any

from fairseq.data import Dictionary

from ..data.export import export_segments
from ..data.predefined import check_one_folder
from ..distributed import rank
from ..files import check_writable

logger = logging.getLogger(__name__)


def write_segments(
    path: str,
    load: Callable[[], Any],
    dictionary: Dictionary,
    data: str,
    data_hash: Callable[[], str | None],
    *,
    post_process: str | None = None,
    tokens_per_sample: int | None = None,
    sample_break_mode: str | None = None,
) -> None:
    """Writes the training segments, or target sentences; of several processes, the first does.

    Args:
        path: file to write.
        load: returns the training subset, in text order.
        dictionary: of its targets.
        data: the DATA argument.
        data_hash: SHA-256 of the binarised text, which takes time.
        post_process: fairseq's name of the subwords that become words again; None: they stay.
        tokens_per_sample, sample_break_mode: how a text was cut into segments.

    Raises:
        ValueError: if the file cannot be written, or DATA names several folders.
    """
    check_writable("--output-segments-to-file", path)
    check_one_folder(data)
    if rank() > 0:
        return
    segments = load()
    export_segments(
        segments,
        dictionary,
        path,
        data_hash=data_hash(),
        tokens_per_sample=tokens_per_sample,
        sample_break_mode=sample_break_mode,
        post_process=post_process,
    )
    what = "segments" if tokens_per_sample else "target sentences"
    logger.info(f"TRIME: wrote {len(segments):,} training {what} to {path}; nothing is trained")
