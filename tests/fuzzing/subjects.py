"""The files that this package reads: how a test makes them, and what reads them."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.commands import REFERENCE, evaluate_here
from tests.datastore.small_stores import (
    DIMENSION,
    ROWS,
    build,
    small_rows,
    stored,
)
from tests.small_data import cut_text
from trime_fairseq.bm25 import SearchResults, index_segments, open_searcher, read_segments, write_batches
from trime_fairseq.bm25.results import SearchInfo
from trime_fairseq.bm25.segments import SegmentsInfo
from trime_fairseq.comparison.kept import Identity, keep, kept
from trime_fairseq.data.predefined import check_description, read_predefined
from trime_fairseq.evaluation.config import EvaluationConfig
from trime_fairseq.evaluation.external import KeySource, open_external
from trime_fairseq.files import file_hash

SEGMENTS = 60


@dataclass(frozen=True)
class Subject:
    """Files that are read together.

    Attributes:
        make: writes them into an empty folder.
        files: patterns of those to damage.
        read: reads them as the package does; what it returns is JSON.
        mutations: how many to try.
    """

    make: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], Any]
    mutations: int


def _digest(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _make_store(folder: Path) -> None:
    """Written as an evaluation writes it: with sizes and checksums."""
    from tests.datastore.small_stores import small_manifest
    from trime_fairseq.datastore import DatastoreWriter

    keys, values = small_rows()
    writer = DatastoreWriter(str(folder / "dstore"), small_manifest(), 0, ROWS, 0)
    writer.write(0, keys, values)
    writer.finish()
    writer.close()
    build(folder)


def _make_folder_store(folder: Path) -> None:
    _make_store(folder)
    (folder / "d").mkdir()
    names = {
        "dstore-fp16_keys.npy": "keys.npy",
        "dstore_vals.npy": "vals.npy",
        "dstore.json": "manifest.json",
    }
    for old, new in names.items():
        (folder / old).rename(folder / "d" / new)
    for path in folder.glob("knn*"):
        path.rename(folder / "d" / path.name)


def _search_folder(folder: Path) -> Any:
    return _search(folder, "d", "d/knn.l2")


def _search(folder: Path, store: str = "dstore", index: str = "knn.l2") -> Any:
    """Scores and tokens of the neighbours, as an evaluation asks for them."""
    config = EvaluationConfig(
        use_external=True, dstore_filename=str(folder / store), indexfile=str(folder / index), k=8
    )
    model = KeySource(DIMENSION, "last_ffn_input", "words", None)
    retriever, _, _ = open_external(config, model, use_gpu=False)
    queries = torch.from_numpy(small_rows()[0][:40].astype(np.float32) + 0.1)
    found = retriever.search(queries)
    return _digest(found.scores, found.tokens)


def _make_half_built(folder: Path) -> None:
    """What a killed build leaves: a trained index, and one with its first chunks."""
    stored(folder)
    kept_back: dict[str, bytes] = {}

    class Killed(Exception):
        pass

    import trime_fairseq.datastore.index.growing as growing

    add = growing.GrowingIndex.add
    calls = [0]

    def add_three(self: Any, *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] > 3:
            kept_back.update({p.name: p.read_bytes() for p in folder.glob("knn*") if "lock" not in p.name})
            raise Killed
        add(self, *arguments)

    growing.GrowingIndex.add = add_three  # type: ignore[method-assign]
    try:
        build(folder)
    except Killed:
        pass
    finally:
        growing.GrowingIndex.add = add  # type: ignore[method-assign]
    for name, content in kept_back.items():
        (folder / name).write_bytes(content)


def _continue(folder: Path) -> Any:
    return _digest(np.fromfile(build(folder), np.uint8))


def _make_checkpoint(folder: Path) -> None:
    cut_text(folder, 300)
    shutil.copy(REFERENCE / "checkpoints" / "word-trime" / "checkpoint_best.pt", folder / "checkpoint.pt")


def _evaluate(folder: Path) -> Any:
    flags = f"--context-window 0 --use-local --batch-size 4 --path {folder / 'checkpoint.pt'}"
    return evaluate_here("word-trime", flags, folder).loss


def _make_segments(folder: Path) -> None:
    texts = [" ".join(f"w{number * step % 97}" for step in range(1, 12)) for number in range(SEGMENTS)]
    content = [{"id": str(number), "contents": text} for number, text in enumerate(texts)]
    path = str(folder / "segments.json")
    Path(path).write_text(json.dumps(content))
    SegmentsInfo(SEGMENTS, file_hash(path) or "", "text", 11, "none").write(path)
    segments = read_segments(path)
    index_segments(segments, str(folder / "index"), "bm25s")
    draw = np.random.default_rng(0)
    info = SearchInfo.made_from(segments.info, engine="bm25s", k=5, piece=20, num_shards=1)
    results = SearchResults.create(str(folder / "results"), info)
    for begin, end in results.pieces():
        others = [np.delete(np.arange(SEGMENTS), number) for number in range(begin, end)]
        ids = np.stack([draw.permutation(other)[:5] for other in others]).astype(np.int32)
        results.write(begin, ids, -np.sort(-draw.random((end - begin, 5), np.float32), axis=1))
    write_batches(results, str(folder / "batches.json"))


def _read_segments(folder: Path) -> Any:
    return hashlib.sha256("\n".join(read_segments(str(folder / "segments.json")).texts).encode()).hexdigest()


def _read_results(folder: Path) -> Any:
    return _digest(*SearchResults.open(str(folder / "results")).read())


def _search_index(folder: Path) -> Any:
    segments = read_segments(str(folder / "segments.json"))
    searcher = open_searcher(str(folder / "index"), segments)
    return _digest(*searcher.search(segments.texts[:20], 5))


def _read_batches(folder: Path) -> Any:
    path = str(folder / "batches.json")
    order = read_predefined(path, SEGMENTS, 11)
    check_description(path, tokens_per_sample=11, sample_break_mode="none", data_hash=lambda: "text")
    return order.tolist()


@dataclass
class _Measured:
    loss: float
    tokens: int


_IDENTITY = Identity(*("a" * 64,) * 4, None, "valid", "test", "--batch-size 8", "local", "", "1")


def _make_kept(folder: Path) -> None:
    keep(str(folder / "kept.json"), _IDENTITY, _Measured(7.25, 1000))


def _read_kept(folder: Path) -> Any:
    found = kept(str(folder / "kept.json"), _IDENTITY)
    # What is damaged is measured again.
    return found if found is not None else {"loss": 7.25, "tokens": 1000}


SUBJECTS = {
    "datastore": Subject(_make_store, ("dstore*", "knn.l2*"), _search, 90),
    "datastore in a folder": Subject(
        _make_folder_store, ("d/manifest.json", "d/vals.npy", "d/knn*"), _search_folder, 20
    ),
    "half-built index": Subject(_make_half_built, ("knn*",), _continue, 40),
    "checkpoint": Subject(_make_checkpoint, ("checkpoint.pt",), _evaluate, 40),
    "segments": Subject(_make_segments, ("segments.json*",), _read_segments, 30),
    "bm25 index": Subject(_make_segments, ("index/*",), _search_index, 30),
    "bm25 results": Subject(_make_segments, ("results/*",), _read_results, 40),
    "batches": Subject(_make_segments, ("batches.json*",), _read_batches, 30),
    "kept result": Subject(_make_kept, ("kept.json",), _read_kept, 20),
}
