"""Names that newer releases of NumPy lack, for the one file of fairseq's data that still uses them."""

import types
import warnings
from typing import Any

import numpy
from fairseq.data import token_block_dataset


class _WithCompat(types.ModuleType):
    """NumPy, with ``compat.long`` as it was."""

    compat = types.SimpleNamespace(long=int)

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy, name)


def restore_numpy_names() -> None:
    """Lets ``--sample-break-mode eos`` and fairseq-interactive work with NumPy 2.3 and later.

    ``TokenBlockDataset``, which cuts every text into samples, says ``np.compat.long``. Only its own ``np`` is
    replaced: NumPy stays as it is for everybody else.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = hasattr(getattr(numpy, "compat", None), "long")
    if not there:
        token_block_dataset.np = _WithCompat("numpy")
    # A sample of one token: fairseq computes what precedes it by two, and does not use it.
    warnings.filterwarnings(
        "ignore", "overflow encountered in scalar", RuntimeWarning, "fairseq.data.token_block_dataset"
    )
