"""Room for the scores of a record: in memory, or in a temporary file that disappears with the process."""

import math
import shutil
import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# More bytes than this go to a file.
MOST_IN_MEMORY = 2**30


def allocate(shapes: Sequence[tuple[int, ...]], most_in_memory: int = MOST_IN_MEMORY) -> list[Tensor]:
    """Float32 tensors on the CPU, to be filled.

    Beyond ``most_in_memory`` bytes together, they lie in a file in the folder for such (``TMPDIR``).

    Raises:
        ValueError: if that folder has not enough room.
    """
    counts = [math.prod(shape) for shape in shapes]
    size = 4 * sum(counts)
    flat = torch.empty(sum(counts)) if size <= most_in_memory else _in_file(size)
    return [part.view(shape) for part, shape in zip(torch.split(flat, counts), shapes)]


def _in_file(size: int) -> Tensor:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    # A mapped file that outgrows its disk kills the process.
    if size > free:
        raise ValueError(
            f"the scores of all settings need {size / 2**30:.1f} GiB, {folder} has {free / 2**30:.1f}: set "
            "TMPDIR to a larger folder, or pass fewer values to --grid-softmax-temp, --grid-mem-size, "
            "--grid-k or --grid-interp-temp"
        )
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=(size // 4,)))
