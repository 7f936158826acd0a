"""The order of segments in which similar ones follow each other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..flags.bounds import SEED, check_argument
from .engines.base import NONE
from .progress import progress_bar


@dataclass(frozen=True)
class Chain:
    """An order of all segments.

    Attributes:
        order: int64 [segments], each id once.
        steps_to_neighbors: how many of the segments - 1 steps go to a retrieved neighbour.
    """

    order: NDArray[np.int64]
    steps_to_neighbors: int

    @property
    def neighbor_share(self) -> float:
        return self.steps_to_neighbors / max(1, len(self.order) - 1)


def greedy_chain(neighbors: NDArray[np.int32], seed: int = 1) -> Chain:
    """From a random segment to its best neighbour that is not in the chain yet, and so on; where all of them
    are, to the first segment of the text that is not. Time and memory are linear in the segments.

    Args:
        neighbors: ids [segments, k], best first; negative ones are none.
        seed: of the first segment.

    Raises:
        ValueError: for ids of no segment, or an impossible seed.
    """
    check_argument("seed", seed, SEED)
    count = len(neighbors)
    if neighbors.size and not NONE <= neighbors.min() <= neighbors.max() < count:
        raise ValueError(f"neighbours must be ids from 0 to {count - 1}: search again")
    order = np.empty(count, dtype=np.int64)
    used = bytearray(count)
    steps, unused = 0, 0
    current = int(np.random.default_rng(seed).integers(count))
    for position in progress_bar(range(count), desc="chain"):
        order[position] = current
        used[current] = 1
        if position == count - 1:
            continue
        for neighbor in neighbors[current].tolist():
            if neighbor >= 0 and not used[neighbor]:
                current = neighbor
                steps += 1
                break
        else:
            while used[unused]:
                unused += 1
            current = unused
    return Chain(order, steps)
