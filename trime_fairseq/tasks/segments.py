"""``--output-segments-to-file``: the training segments as text, instead of a training."""

import logging
from collections.abc import Callable
from typing import Any

from fairseq.data import Dictionary

from ..data.export import export_segments
from ..data.predefined import check_one_folder
from ..data.provenance import text_files_hash
from ..distributed import rank
from ..files import check_writable

logger = logging.getLogger(__name__)


def write_segments(path: str, load: Callable[[], Any], dictionary: Dictionary, config: Any) -> None:
    """Writes the training segments; of several processes, the first does.

    Args:
        path: file to write.
        load: returns the training subset, in text order.
        dictionary: of its tokens.
        config: of the task.

    Raises:
        ValueError: if the file cannot be written, or DATA names several folders.
    """
    check_writable("--output-segments-to-file", path)
    check_one_folder(config.data)
    if rank() > 0:
        return
    segments = load()
    export_segments(
        segments,
        dictionary,
        path,
        data_hash=text_files_hash(config.data, config.train_subset),
        tokens_per_sample=config.tokens_per_sample,
        sample_break_mode=str(config.sample_break_mode),
    )
    logger.info(f"TRIME: wrote {len(segments):,} training segments to {path}; nothing is trained")
