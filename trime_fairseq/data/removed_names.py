"""Names that newer releases of NumPy and bitarray lack, for the files of fairseq that still use them."""

import types
import warnings
from typing import Any

import numpy
from bitarray import bitarray, util
from fairseq.data import token_block_dataset
from fairseq.data.huffman import huffman_coder


class _Extended(types.ModuleType):
    """A module with additional names."""

    def __init__(self, module: types.ModuleType, **names: Any) -> None:
        super().__init__(module.__name__)
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def restore_removed_names() -> None:
    """Lets fairseq cut a text into lines, and read ``--dataset-impl huffman``, with today's libraries.

    ``TokenBlockDataset`` says ``np.compat.long`` for ``--sample-break-mode eos`` and in fairseq-interactive;
    the Huffman code says ``util.rindex``. Only what these two files see is extended: the libraries stay as
    they are for everybody else.
    """
    # The releases of fairseq say one or the other.
    names = {"long": int, "compat": types.SimpleNamespace(long=int)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        missing = {name: value for name, value in names.items() if not hasattr(numpy, name)}
    if missing:
        token_block_dataset.np = _Extended(numpy, **missing)
    if not hasattr(util, "rindex"):
        huffman_coder.util = _Extended(util, rindex=_last_index)
    # For a sample of one token fairseq computes a position before its beginning, and does not use it.
    warnings.filterwarnings(
        "ignore", "overflow encountered in scalar", RuntimeWarning, "fairseq.data.token_block_dataset"
    )


def _last_index(bits: bitarray, value: int) -> int:
    found = bits.find(bitarray([value]), right=True)
    if found < 0:
        raise ValueError(f"{value} is not in the bits")
    return int(found)
