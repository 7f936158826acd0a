"""The list of segment ids for ``--predefined-batches``, and the file beside it that describes it."""

import os
from dataclasses import dataclass, fields
from typing import Iterable, Optional

from ..files import text_hash, write_json
from .chain import greedy_chain
from .results import Results
from .segments import INFO, SegmentsInfo


@dataclass(frozen=True, kw_only=True)
class BatchesInfo(SegmentsInfo):
    """What a list of predefined batches is of.

    Attributes:
        order_hash: SHA-256 of the list, its ids separated by commas.
        engine, k, seed: of search and chain.
        neighbor_share: share of the steps from a segment to one of its ``k`` neighbours.
    """

    order_hash: str
    engine: str
    k: int
    seed: int
    neighbor_share: float

    @classmethod
    def read(cls, batch_file: str) -> Optional["BatchesInfo"]:
        """None for a list without one.

        Raises:
            ValueError: for a file that is none.
        """
        path = batch_file + INFO
        if not os.path.exists(path):
            return None
        return cls.load(path, "does not describe predefined batches: make them again")


def order_hash(order: Iterable[int]) -> str:
    """See :class:`BatchesInfo`."""
    return text_hash(",".join(map(str, order)))


def write_batches(results: Results, batch_file: str, seed: int = 1) -> BatchesInfo:
    """Chains all segments of complete results and writes the list, if it is not there already.

    Raises:
        ValueError: if results are missing.
    """
    chain = greedy_chain(results.read()[0], seed)
    info = BatchesInfo(
        **{field.name: getattr(results.info, field.name) for field in fields(SegmentsInfo)},
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
