"""``--output-segments-to-file``: the training segments, or target sentences, as text, for retrieval.

:func:`run_export` and :func:`run_sentence_export` run fairseq, whose task calls :func:`export_segments`.
Importing this file does not import fairseq.
"""

import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..bm25.limits import MOST_SEGMENTS
from ..bm25.progress import progress_bar
from ..bm25.segments import SegmentsInfo
from ..files import PACKAGE, Lock, check_writable, file_hash, whole_file
from ..flags.bounds import Bounds, check_argument
from .pair_files import PairFiles, find_pairs
from .predefined import check_one_folder
from .provenance import text_files_hash

if TYPE_CHECKING:
    from fairseq.data import Dictionary

logger = logging.getLogger(__name__)


def run_export(
    data: str, segments_path: str, tokens_per_sample: int, sample_break_mode: str = "none"
) -> None:
    """Runs ``fairseq-train --output-segments-to-file`` on the CPU, if these segments are not there already.

    Args:
        data: folder of the binarised text.
        segments_path: file to write.
        tokens_per_sample, sample_break_mode: how the text is cut.

    Raises:
        ValueError: if the file is of another text or cut otherwise, if ``data`` names several folders, if
            fairseq is not installed, or with fairseq's last line if it fails.
    """
    check_argument("tokens_per_sample", tokens_per_sample, Bounds(1, MOST_SEGMENTS))
    _export_once(data, segments_path, tokens_per_sample, sample_break_mode)


def run_sentence_export(data: str, segments_path: str) -> None:
    """The same of the target sentences of a translation.

    Args:
        data: folder of the binarised pairs.
        segments_path: file to write.

    Raises:
        ValueError: as of :func:`run_export`, and if ``data`` holds no pairs.
    """
    _pairs(data)  # before anything else is done
    _export_once(data, segments_path, None, None)


def _export_once(data: str, path: str, tokens_per_sample: int | None, sample_break_mode: str | None) -> None:
    """Both exports; without ``tokens_per_sample`` that of sentences."""
    check_one_folder(data)
    check_writable("`segments_path`", path)
    what = f"segments of {tokens_per_sample:,} tokens" if tokens_per_sample else "training target sentences"
    lock = Lock(f"{path}.lock")
    lock.acquire(wait=True)
    try:
        if os.path.exists(path) and _check(data, path, tokens_per_sample, sample_break_mode):
            logger.info(f"{path}: the segments are there already")
        else:
            _run_fairseq(data, path, tokens_per_sample, sample_break_mode)
            logger.info(f"{path}: {what}")
    finally:
        lock.release()


def _check(data: str, path: str, tokens_per_sample: int | None, sample_break_mode: str | None) -> bool:
    """Whether the segments that are there are whole; a file that is damaged since is written again."""
    there = SegmentsInfo.read(path)
    if there is None:
        different = f"there is no {SegmentsInfo.suffix} that tells"
    else:
        here = replace(
            there,
            data_hash=text_files_hash(data, "train") if tokens_per_sample else _pairs(data).target_hash(),
            tokens_per_sample=tokens_per_sample,
            sample_break_mode=sample_break_mode,
        )
        if there == here:
            if there.text_hash == file_hash(path):
                return True
            logger.warning(f"{path} is damaged: the segments are exported again")
            return False
        different = f"there / here: {there.differences(here)}"
    raise ValueError(
        f"`segments_path` {path} holds segments of another text, or cut otherwise ({different}): "
        "remove it and what was made of it, or choose another folder"
    )


def _pairs(data: str) -> PairFiles:
    files = find_pairs(data, "train")
    if files is None:
        raise ValueError(
            f"DATA_BIN {data} holds no training pairs, such as train.de-en.de.idx: make them with "
            "fairseq-preprocess"
        )
    return files


def _run_fairseq(data: str, path: str, tokens_per_sample: int | None, sample_break_mode: str | None) -> None:
    if importlib.util.find_spec("fairseq") is None:
        raise ValueError('fairseq-train exports segments: pip install "trime_fairseq[fairseq]"')
    flags = [sys.executable, "-m", "fairseq_cli.train", data, "--user-dir", PACKAGE, "--cpu"]
    flags += ["--save-dir", os.path.dirname(os.path.abspath(path)), "--output-segments-to-file", path]
    if tokens_per_sample:
        if not os.path.isfile(os.path.join(data, "dict.txt")):
            raise ValueError(f"DATA_BIN {data} holds no dict.txt: make it with fairseq-preprocess")
        flags += ["--task", "trime_language_modeling", "--arch", "transformer_lm"]
        flags += ["--criterion", "adaptive_loss", "--sample-break-mode", str(sample_break_mode)]
        flags += ["--tokens-per-sample", str(tokens_per_sample), "--max-tokens", str(tokens_per_sample)]
    else:
        pairs = _pairs(data)
        flags += ["--task", "trime_translation", "--arch", "transformer_iwslt_de_en", "--max-tokens", "4096"]
        flags += ["--source-lang", pairs.source, "--target-lang", pairs.target]
    # With GPUs fairseq would start a process for each.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(flags, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    if done.returncode or not os.path.exists(path):
        last = (done.stdout.strip().splitlines() or ["no output"])[-1].removeprefix("TRIME: error: ")
        raise ValueError(f"{data}: fairseq-train cannot export its segments: {last}")


def export_segments(
    dataset: Sequence[Any],
    dictionary: "Dictionary",
    path: str,
    *,
    data_hash: str | None = None,
    tokens_per_sample: int | None = None,
    sample_break_mode: str | None = None,
    post_process: str | None = None,
) -> None:
    """Writes a JSON list of ``{"id": "0", "contents": "text of segment 0"}``, one segment a line.

    Ids are strings, as Lucene wants them. The text are the symbols of the targets, separated by spaces,
    without end-of-sentence symbols. The file is written segment by segment, and appears under its name
    when it is complete; beside it ``path.info`` says what it was exported from.

    Args:
        dataset: fairseq's ``MonolingualDataset`` or ``LanguagePairDataset``, in text order.
        dictionary: of its tokens.
        path: file to write.
        data_hash, tokens_per_sample, sample_break_mode: for the description.
        post_process: fairseq's name of the subwords that become words again (``--post-process``).

    Raises:
        OSError: if the file cannot be written.
    """
    from fairseq.data.data_utils import post_process as join_subwords

    symbols = dictionary.symbols
    unwritten = {dictionary.bos(), dictionary.eos(), dictionary.pad()}
    digest = hashlib.sha256()
    with whole_file(path) as file:

        def put(text: str) -> None:
            file.write(text)
            digest.update(text.encode())

        separator = "["
        for number in progress_bar(range(len(dataset)), desc="segments to text"):
            tokens = dataset[number]["target"].tolist()
            text = " ".join([symbols[token] for token in tokens if token not in unwritten])
            text = join_subwords(text, post_process) if post_process else text
            line = json.dumps({"id": str(number), "contents": text}, ensure_ascii=False)
            put(f"{separator}\n{line}")
            separator = ","
        put("\n]\n" if len(dataset) else "[]\n")
        info = SegmentsInfo(
            segments=len(dataset),
            text_hash=digest.hexdigest(),
            data_hash=data_hash,
            tokens_per_sample=tokens_per_sample,
            sample_break_mode=sample_break_mode,
        )
        # Before the list appears: after a kill in between the two do not fit, which readers refuse.
        info.write(path)
