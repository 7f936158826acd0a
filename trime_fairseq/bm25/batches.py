"""The list of segment ids for ``--predefined-batches``, and the file beside it that describes it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..files import NotNegative, Positive, check_writable, read_json, text_hash, write_json
from ..flags.bounds import SEED, check_argument
from .chain import greedy_chain
from .results import SearchResults
from .segments import SegmentsInfo

# The most bytes of a list of N segments, however a program formats it: some, and some for each segment.
_BYTES, _BYTES_OF_ID = 2**20, 32


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
    k: Positive
    seed: NotNegative
    neighbor_share: Annotated[float, 0, 1]


def order_hash(order: Iterable[int]) -> str:
    """See :class:`BatchesInfo`."""
    return text_hash(",".join([str(int(number)) for number in order]))


def read_order(
    batch_file: str, where: str, segments: int, others: str, unit: str = "segment"
) -> NDArray[np.int64]:
    """Reads a list of predefined batches, int64 [segments]; training and reports read it here.

    Args:
        batch_file: the list.
        where: how messages name it.
        segments: their number.
        others: what a message says, after the number of ids, if there are more or fewer.
        unit: what is listed, for messages.

    Raises:
        ValueError: if it cannot be read, is no list that holds each number from 0 to ``segments`` - 1 once,
            or not the one that the file beside it describes.
    """
    try:
        ids = read_json(batch_file, _BYTES + _BYTES_OF_ID * segments)
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}: cannot be read as JSON: {error}") from error
    if not isinstance(ids, list) or not all(type(number) is int for number in ids):
        raise ValueError(f"{where}: a JSON list of integers expected, the ids of the training {unit}s")
    if len(ids) != segments:
        raise ValueError(f"{where} lists {len(ids):,} {unit}s, {others}")
    info = BatchesInfo.read(batch_file)
    if info is not None and info.order_hash != order_hash(ids):
        raise ValueError(
            f"{where} is not the list that the {BatchesInfo.suffix} beside it describes: make the file again"
        )
    return _permutation(ids, where, unit)


def _permutation(ids: list[int], where: str, unit: str) -> NDArray[np.int64]:
    outside = [number for number in ids if not 0 <= number < len(ids)]
    if outside:
        raise ValueError(
            f"{where}: {outside[0]} is not the id of a {unit} (0 to {len(ids) - 1:,}): "
            "make the file again from these data"
        )
    order = np.asarray(ids, dtype=np.int64)
    found = np.bincount(order, minlength=len(ids))
    if (found != 1).any():
        repeated, missing = int(found.argmax()), int(found.argmin())
        raise ValueError(
            f"{where}: each {unit} must be listed once, but {repeated} is listed {found[repeated]} times "
            f"and {missing} not at all"
        )
    return order


def write_batches(results: SearchResults, batch_file: str, seed: int = 1) -> BatchesInfo:
    """Chains all segments of complete results and writes the list, if it is not there already.

    Raises:
        ValueError: if results are missing, or if another file is there, or nothing can be written.
    """
    check_argument("seed", seed, SEED)
    check_writable("`batch_file`", batch_file)
    _refuse_others(batch_file, results)
    chain = greedy_chain(results.read()[0], seed)
    info = BatchesInfo.made_from(
        results.info,
        order_hash=order_hash(chain.order.tolist()),
        engine=results.info.engine,
        k=results.info.k,
        seed=seed,
        neighbor_share=round(chain.neighbor_share, 4),
    )
    if not _is_there(batch_file, info):
        # The description first, so that no list is taken without being checked.
        info.write(batch_file)
        write_json(batch_file, chain.order.tolist(), indent=None)
    return info


def _refuse_others(batch_file: str, results: SearchResults) -> None:
    """Raises ValueError if the file is there and was not made from these segments."""
    if not os.path.exists(batch_file) or not os.path.getsize(batch_file):
        return
    what = f"`batch_file` {batch_file} is there, "
    try:
        there = BatchesInfo.read(batch_file)
    except ValueError:
        return  # damaged, which is mended
    if there is None:
        what += f"without the {BatchesInfo.suffix} of a list that trime-bm25 has made"
    else:
        names = [entry.name for entry in fields(SegmentsInfo)]
        different = there.differences(results.info, names)
        if not different:
            return
        what += f"a list of other segments (there / here: {different})"
    raise ValueError(f"{what}: remove it, or choose another name")


def _is_there(batch_file: str, info: BatchesInfo) -> bool:
    """Whether the list is the one to be written; a damaged one is written again."""
    try:
        if not os.path.exists(batch_file) or BatchesInfo.read(batch_file) != info:
            return False
        read_order(batch_file, batch_file, info.segments, "another number")
    except ValueError:
        return False
    return True
