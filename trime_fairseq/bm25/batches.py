"""The list of segment ids for ``--predefined-batches``, and the file beside it that describes it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ..files import text_hash, write_json
from .chain import greedy_chain
from .results import SearchResults
from .segments import SegmentsInfo


@dataclass(frozen=True, kw_only=True)
class BatchesInfo(SegmentsInfo):
    """Provenance of a list of predefined batches.

    Attributes:
        order_hash: SHA-256 of the list, its ids separated by commas.
        engine, k, seed: of search and chain.
        neighbor_share: share of the steps from a segment to one of its ``k`` neighbours.
    """

    otherwise: ClassVar[str] = "does not describe predefined batches: make them again"

    order_hash: str
    engine: str
    k: int
    seed: int
    neighbor_share: float


def order_hash(order: Iterable[int]) -> str:
    """See :class:`BatchesInfo`."""
    return text_hash(",".join(map(str, order)))


def write_batches(results: SearchResults, batch_file: str, seed: int = 1) -> BatchesInfo:
    """Chains all segments of complete results and writes the list, if it is not there already.

    Raises:
        ValueError: if results are missing.
    """
    chain = greedy_chain(results.read()[0], seed)
    info = BatchesInfo.made_from(
        results.info,
        order_hash=order_hash(chain.order.tolist()),
        engine=results.info.engine,
        k=results.info.k,
        seed=seed,
        neighbor_share=round(chain.neighbor_share, 4),
    )
    if not (os.path.exists(batch_file) and BatchesInfo.read(batch_file) == info):
        # The description first, so that no list is taken without being checked.
        info.write(batch_file)
        write_json(batch_file, chain.order.tolist(), indent=None)
    return info
