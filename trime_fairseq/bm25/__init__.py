"""BM25 batching: similar training segments one after another, for ``--predefined-batches``.

Segments exported with ``--output-segments-to-file`` are indexed (:func:`index_segments`), searched for their
neighbours (:func:`search_segments`), chained (:func:`greedy_chain`) and written as a list of ids
(:func:`write_batches`). Works without fairseq and PyTorch.
"""

from .batches import BatchesInfo, write_batches
from .chain import Chain, greedy_chain
from .engines import default_engine
from .index import index_segments, open_searcher
from .results import SearchResults
from .search import search_segments
from .segments import Segments, SegmentsInfo, read_segments

__all__ = [
    "BatchesInfo",
    "Chain",
    "SearchResults",
    "Segments",
    "SegmentsInfo",
    "default_engine",
    "greedy_chain",
    "index_segments",
    "open_searcher",
    "read_segments",
    "search_segments",
    "write_batches",
]
