"""The first stage: training segments as text, by fairseq itself."""

import logging
import os
import subprocess
import sys

from ..bm25.segments import INFO, SegmentsInfo
from ..files import Lock

logger = logging.getLogger(__name__)

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def export(data: str, path: str, tokens_per_sample: int, sample_break_mode: str = "none") -> None:
    """Runs ``fairseq-train --output-segments-to-file`` on the CPU, if these segments are not there already.

    Args:
        data: folder of the binarised text.
        path: file to write.
        tokens_per_sample, sample_break_mode: how the text is cut.

    Raises:
        ValueError: if the file is of another text or cut otherwise, or with fairseq's last line if it fails.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    lock = Lock(f"{path}.lock")
    lock.acquire(wait=True)
    try:
        if os.path.exists(path):
            _check(data, path, tokens_per_sample, sample_break_mode)
            logger.info(f"{path}: the segments are there already")
        else:
            _run(data, path, tokens_per_sample, sample_break_mode)
    finally:
        lock.release()


def _check(data: str, path: str, tokens_per_sample: int, sample_break_mode: str) -> None:
    # fairseq's reader of binarised text is imported with fairseq, which nothing else here needs.
    from .provenance import text_files_hash

    there = None
    if os.path.exists(path + INFO):
        there = SegmentsInfo.load(path + INFO, "does not describe segments: export them again")
    here = (text_files_hash(data, "train"), tokens_per_sample, sample_break_mode)
    if there is None or (there.data_hash, there.tokens_per_sample, there.sample_break_mode) != here:
        raise ValueError(
            f"--segments_path {path} holds segments of another text, or cut otherwise: remove it and what "
            "was made of it, or choose another folder"
        )


def _run(data: str, path: str, tokens_per_sample: int, sample_break_mode: str) -> None:
    command = [sys.executable, "-m", "fairseq_cli.train", data, "--user-dir", PACKAGE]
    command += ["--task", "trime_language_modeling", "--arch", "transformer_lm", "--cpu"]
    command += ["--criterion", "adaptive_loss", "--sample-break-mode", sample_break_mode]
    command += ["--tokens-per-sample", str(tokens_per_sample), "--max-tokens", str(tokens_per_sample)]
    command += ["--save-dir", os.path.dirname(os.path.abspath(path)), "--output-segments-to-file", path]
    # With GPUs fairseq would start a process for each.
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    if done.returncode or not os.path.exists(path):
        last = done.stdout.strip().splitlines()[-1:] or ["no output"]
        raise ValueError(f"{data}: fairseq-train cannot export its segments: {last[0]}")
    logger.info(f"{path}: segments of {tokens_per_sample:,} tokens")
