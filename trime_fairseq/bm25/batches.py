"""The list of segment ids for ``--predefined-batches``, and the file beside it that describes it."""

import os
from dataclasses import asdict, dataclass
from typing import Iterable, Optional

from ..descriptions import FORMAT_VERSION, read_description
from ..files import text_hash, write_json
from .chain import greedy_chain
from .results import Results
from .segments import INFO, SegmentsInfo


@dataclass(frozen=True)
class BatchesInfo:
    """What a list of predefined batches is of.

    Attributes:
        segments, text_hash, data_hash, tokens_per_sample, sample_break_mode: as in :class:`SegmentsInfo`.
        order_hash: SHA-256 of the list, its ids separated by commas.
        engine, k, seed: of search and chain.
        neighbor_share: share of the steps from a segment to one of its ``k`` neighbours.
    """

    segments: int
    text_hash: str
    order_hash: str
    engine: str
    k: int
    seed: int
    neighbor_share: float
    data_hash: Optional[str] = None
    tokens_per_sample: Optional[int] = None
    sample_break_mode: Optional[str] = None
    format_version: int = FORMAT_VERSION

    @classmethod
    def read(cls, batch_file: str) -> Optional["BatchesInfo"]:
        """None for a list without one.

        Raises:
            ValueError: for a file that is none.
        """
        path = batch_file + INFO
        if not os.path.exists(path):
            return None
        return read_description(cls, path, "does not describe predefined batches: make them again")

    @property
    def of_segments(self) -> SegmentsInfo:
        return SegmentsInfo(
            self.segments, self.text_hash, self.data_hash, self.tokens_per_sample, self.sample_break_mode
        )


def order_hash(order: Iterable[int]) -> str:
    """See :class:`BatchesInfo`."""
    return text_hash(",".join(map(str, order)))


def write_batches(results: Results, batch_file: str, seed: int = 1) -> BatchesInfo:
    """Chains all segments of complete results and writes the list, if it is not there already.

    Raises:
        ValueError: if results are missing.
    """
    chain = greedy_chain(results.read()[0], seed)
    search = results.info
    info = BatchesInfo(
        segments=search.segments,
        text_hash=search.text_hash,
        order_hash=order_hash(chain.order.tolist()),
        engine=search.engine,
        k=search.k,
        seed=seed,
        neighbor_share=round(chain.neighbor_share, 4),
        data_hash=search.data_hash,
        tokens_per_sample=search.tokens_per_sample,
        sample_break_mode=search.sample_break_mode,
    )
    if not (os.path.exists(batch_file) and BatchesInfo.read(batch_file) == info):
        # The description first, so that no list is taken without being checked.
        write_json(batch_file + INFO, asdict(info))
        write_json(batch_file, chain.order.tolist(), indent=None)
    return info
