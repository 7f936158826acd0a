"""Exports of segments, and engines, for the tests of BM25 batching."""

import importlib.util
import json
import os
import resource
from contextlib import contextmanager

import pytest

from trime_fairseq.bm25 import read_segments
from trime_fairseq.bm25.engines.java import find_java


def write(path, texts, ids=None):
    ids = map(str, range(len(texts))) if ids is None else ids
    path.write_text(json.dumps([{"id": i, "contents": text} for i, text in zip(ids, texts)]))
    return str(path)


def segments_of(folder, texts):
    return read_segments(write(folder / "segments.json", texts))


@contextmanager
def largest_file(size):
    """What a full disk is: nothing is written beyond so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def why_no_lucene():
    """Why the engine cannot be tested here; None if it can."""
    if importlib.util.find_spec("pyserini") is None:
        return "Pyserini is not installed"
    try:
        find_java()
    except ValueError as error:
        return str(error)
    return None


# Each Java runs for seconds, in which a compiler that optimises well only costs time.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
REASON = why_no_lucene()
needs_lucene = pytest.mark.skipif(REASON is not None, reason=str(REASON))
LUCENE = pytest.param("lucene", marks=[needs_lucene, pytest.mark.slow])
ENGINES = [LUCENE, "bm25s"]
