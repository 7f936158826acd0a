"""Building and opening an index of segments, whatever the engine."""

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from glob import escape as glob_escape
from glob import glob
from typing import Dict, Optional

from ..files import Description, Lock, NotNegative
from .engines.base import Engine, Searcher
from .engines.bm25s import Sparse
from .engines.lucene import Lucene
from .segments import Segments

logger = logging.getLogger(__name__)

ENGINES: Dict[str, Engine] = {engine.name: engine for engine in (Lucene(), Sparse())}
INFO = "trime.info"


@dataclass(frozen=True)
class IndexInfo(Description):
    """The file in the folder of an index: its engine and the hash of the exported segments."""

    engine: str
    segments: NotNegative
    text_hash: str

    @classmethod
    def read(cls, folder: str) -> Optional["IndexInfo"]:
        """None for an index that Pyserini's own command has made."""
        path = os.path.join(folder, INFO)
        if not os.path.exists(path):
            return None
        return cls.load(path, "does not describe an index of segments: remove the folder")


def build_index(segments: Segments, folder: str, engine: str = "lucene", threads: int = 1) -> None:
    """Writes an index, which appears in ``folder`` when it is complete; one that is there already is kept.

    Raises:
        ValueError: if the folder holds anything else than this index, or if the engine is not installed.
    """
    folder = folder.rstrip("/")
    info = IndexInfo(engine, segments.info.segments, segments.info.text_hash)
    parent = os.path.dirname(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    lock = Lock(f"{folder}.lock")
    # Of the shards of a search that are started together one builds the index, and the others wait for it.
    lock.acquire(wait=True)
    try:
        if _is_there(folder, info, segments.path):
            logger.info(f"{folder}: the index is there already")
            return
        # A killed run leaves its folder, and perhaps a Java that still writes into it.
        for left in glob(f"{glob_escape(folder)}.partial-*"):
            shutil.rmtree(left, ignore_errors=True)
        work = tempfile.mkdtemp(dir=parent, prefix=f"{os.path.basename(folder)}.partial-")
        partial = os.path.join(work, "index")
        ENGINES[engine].build(segments.texts, partial, threads)
        info.save(os.path.join(partial, INFO))
        os.replace(partial, folder)
        shutil.rmtree(work)
    finally:
        lock.release()
    logger.info(f"{folder}: {engine} index of {info.segments:,} segments")


def _is_there(folder: str, info: IndexInfo, segments: str) -> bool:
    if not os.path.isdir(folder) or not os.listdir(folder):
        return False
    if IndexInfo.read(folder) != info:
        raise ValueError(
            f"--index_path {folder} holds something else than the {info.engine} index of {segments}: "
            "remove it, or choose another folder"
        )
    return True


def open_index(folder: str, segments: Segments, threads: int = 1) -> Searcher:
    """Opens the index of these segments, built by :func:`build_index` or by Pyserini's own command, for
    searches on ``threads`` threads.

    Raises:
        ValueError: if there is none, or it is of other segments.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"--index_path {folder}: no such folder; run trime-bm25 index")
    info = IndexInfo.read(folder)
    if info is not None and info.text_hash != segments.info.text_hash:
        raise ValueError(
            f"--index_path {folder} is the index of other segments than {segments.path}: remove it and "
            "build it again"
        )
    searcher = ENGINES[engine_of(folder)].open(folder, threads)
    # Lucene leaves out segments without text.
    texts = sum(bool(text.strip()) for text in segments.texts)
    if not texts <= len(searcher) <= len(segments.texts):
        found = len(searcher)
        searcher.close()
        raise ValueError(
            f"--index_path {folder} is an index of {found:,} segments, but {segments.path} has {texts:,} "
            "with text: remove it and build it again"
        )
    return searcher


def engine_of(folder: str) -> str:
    """The name of the engine of an index."""
    info = IndexInfo.read(folder)
    if info is not None and info.engine not in ENGINES:
        raise ValueError(f"--index_path {folder} is of the engine {info.engine}, which this version lacks")
    return info.engine if info else Lucene.name
