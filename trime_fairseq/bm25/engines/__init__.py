"""The search engines of BM25 batching."""

import importlib.util

from .base import Engine
from .bm25s import Bm25s
from .lucene import Lucene

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (Lucene(), Bm25s())}


def default_engine() -> str:
    """``lucene`` where Pyserini is installed, ``bm25s`` where it is not."""
    return Lucene.name if importlib.util.find_spec("pyserini") else Bm25s.name
