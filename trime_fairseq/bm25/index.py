"""Building and opening an index of segments, whatever the engine."""

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from glob import escape as glob_escape
from glob import glob
from typing import ClassVar, Optional

from ..files import Description, Lock, NotNegative
from .engines import ENGINES, default_engine
from .engines.base import Searcher
from .engines.lucene import Lucene
from .segments import Segments

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexInfo(Description):
    """The file in the folder of an index: its engine and the hash of the exported segments."""

    file_name: ClassVar[str] = "trime.info"

    engine: str
    segments: NotNegative
    text_hash: str

    @classmethod
    def read(cls, index_path: str) -> Optional["IndexInfo"]:
        """None for an index that Pyserini's own command has made."""
        path = os.path.join(index_path, cls.file_name)
        if not os.path.exists(path):
            return None
        return cls.load(path, "does not describe an index of segments: remove the folder")


def index_segments(segments: Segments, index_path: str, engine: str | None = None, threads: int = 1) -> None:
    """Writes an index, which appears in the folder ``index_path`` when it is complete; one that is there
    already is kept.

    Args:
        engine: ``lucene`` or ``bm25s``; None for :func:`default_engine`.
        threads: of the engine.

    Raises:
        ValueError: if the folder holds anything else than this index, or if the engine is not installed.
    """
    folder = index_path.rstrip("/")
    engine = engine or default_engine()
    if engine not in ENGINES:
        raise ValueError(f"`engine` {engine} is not one of {', '.join(sorted(ENGINES))}")
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
        info.save(os.path.join(partial, info.file_name))
        os.replace(partial, folder)
        shutil.rmtree(work)
    finally:
        lock.release()
    logger.info(f"{folder}: {engine} index of {info.segments:,} segments")


def _is_there(folder: str, info: IndexInfo, segments_path: str) -> bool:
    if not os.path.isdir(folder) or not os.listdir(folder):
        return False
    if IndexInfo.read(folder) != info:
        raise ValueError(
            f"`index_path` {folder} holds something else than the {info.engine} index of {segments_path}: "
            "remove it, or choose another folder"
        )
    return True


def open_searcher(index_path: str, segments: Segments, threads: int = 1) -> Searcher:
    """Opens the index of these segments, built by :func:`index_segments` or by Pyserini's own command, for
    searches on ``threads`` threads.

    Raises:
        ValueError: if there is none, or it is of other segments.
    """
    where = f"`index_path` {index_path}"
    if not os.path.isdir(index_path):
        raise ValueError(f"{where}: no such folder; run trime-bm25 index")
    info = IndexInfo.read(index_path)
    if info is not None and info.text_hash != segments.info.text_hash:
        raise ValueError(
            f"{where} is the index of other segments than {segments.path}: remove it and build it again"
        )
    engine = info.engine if info else Lucene.name
    if engine not in ENGINES:
        raise ValueError(f"{where} is of the engine {engine}, which this version lacks")
    searcher = ENGINES[engine].open(index_path, threads)
    # Lucene leaves out segments without text.
    texts = sum(bool(text.strip()) for text in segments.texts)
    if not texts <= len(searcher) <= len(segments.texts):
        found = len(searcher)
        searcher.close()
        raise ValueError(
            f"{where} is an index of {found:,} segments, but {segments.path} has {texts:,} with text: "
            "remove it and build it again"
        )
    return searcher
