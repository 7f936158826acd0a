"""``--output-segments-to-file``: the training segments as text, for retrieval."""

import json
import os
from typing import Any, Optional, Sequence

from fairseq.data import Dictionary
from tqdm import tqdm

from ..bm25.segments import SegmentsInfo
from ..files import file_hash


def export_segments(
    dataset: Sequence[Any],
    dictionary: Dictionary,
    path: str,
    *,
    data_hash: Optional[str] = None,
    tokens_per_sample: Optional[int] = None,
    sample_break_mode: Optional[str] = None,
) -> None:
    """Writes a JSON list of ``{"id": "0", "contents": "text of segment 0"}``, one segment a line.

    Ids are strings, as Lucene wants them. The text are the symbols of the targets, separated by spaces,
    without end-of-sentence symbols. The file is written segment by segment, and appears under its name
    when it is complete; beside it ``path.info`` says what it was exported from.

    Args:
        dataset: fairseq's ``MonolingualDataset``, in text order.
        dictionary: of its tokens.
        path: file to write.
        data_hash, tokens_per_sample, sample_break_mode: for the description.

    Raises:
        OSError: if the file cannot be written.
    """
    symbols = dictionary.symbols
    unwritten = {dictionary.bos(), dictionary.eos(), dictionary.pad()}
    part = f"{path}.part"
    with open(part, "w", encoding="utf-8") as file:
        separator = "["
        for number in tqdm(range(len(dataset)), unit=" segments", desc="segments to text"):
            tokens = dataset[number]["target"].tolist()
            text = " ".join([symbols[token] for token in tokens if token not in unwritten])
            line = json.dumps({"id": str(number), "contents": text}, ensure_ascii=False)
            file.write(f"{separator}\n{line}")
            separator = ","
        file.write("\n]\n" if len(dataset) else "[]\n")
        file.flush()
        os.fsync(file.fileno())
    info = SegmentsInfo(len(dataset), file_hash(part) or "", data_hash, tokens_per_sample, sample_break_mode)
    # A kill in between leaves a description that does not fit, which readers refuse.
    info.write(path)
    os.replace(part, path)
