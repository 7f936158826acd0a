"""Text binarised as ``lazy``, ``cached`` or ``huffman``, read in any order by any process."""

from typing import Any

import numpy as np
import torch
from fairseq.data import ConcatDataset, Dictionary, FairseqDataset
from fairseq.data.huffman import HuffmanMMapIndexedDataset
from fairseq.data.indexed_dataset import IndexedDataset, data_file_path
from numpy.typing import NDArray
from torch import Tensor


class StoredText(FairseqDataset):
    """The lines of a text in fairseq's old format, mapped from its file.

    fairseq's ``cached`` reads only lines that it was told of before (:meth:`prefetch`), its ``lazy`` one
    shares the position in an open file between processes. Neither holds for batches in an order of one's own.

    Args:
        lines: fairseq's dataset; its index is kept.
    """

    def __init__(self, lines: IndexedDataset) -> None:
        super().__init__()
        self.sizes: NDArray[np.int64] = lines.sizes
        self._begins = lines.data_offsets
        self._path, self._dtype = data_file_path(lines.path), lines.dtype
        self._first = 1 if lines.fix_lua_indexing else 0
        self._tokens: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Tensor:
        if self._tokens is None:
            self._tokens = np.memmap(self._path, self._dtype, "r")
        begin = self._begins[index]
        line = self._tokens[begin : begin + self.sizes[index]]
        return torch.from_numpy(line.astype(np.int64) - self._first)

    def __getstate__(self) -> dict[str, Any]:
        # A loader's worker maps the file itself.
        return {**self.__dict__, "_tokens": None}


class CodedText(FairseqDataset):
    """The lines of ``--dataset-impl huffman``, in the numbers of the dictionary.

    fairseq's own gives the numbers of the code, which are ranks by frequency: the symbols are others then.

    Args:
        lines: fairseq's dataset.
        dictionary: that the model has.

    Raises:
        ValueError: if the code has a symbol that the dictionary lacks.
    """

    def __init__(self, lines: HuffmanMMapIndexedDataset, dictionary: Dictionary) -> None:
        super().__init__()
        self.lines, self.sizes = lines, lines.sizes
        symbols = {node.id: node.symbol for node in lines.coder}
        unknown = [symbol for symbol in symbols.values() if symbol not in dictionary]
        if unknown:
            raise ValueError(
                f"{lines._prefix_path}.vocab has the symbol {unknown[0]!r}, which the dictionary lacks: make "
                "the text again with the dictionary of the model"
            )
        self._numbers = np.zeros(max(symbols) + 1, np.int64)
        for number, symbol in symbols.items():
            self._numbers[number] = dictionary.index(symbol)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self._numbers[self.lines[index].numpy()])


def readable_in_any_order(dataset: Any, dictionary: Dictionary) -> Any:
    """Replaces the parts of a dataset that cannot be read in any order, or do not use the dictionary's
    numbers."""
    if isinstance(dataset, IndexedDataset):
        return StoredText(dataset)
    if isinstance(dataset, HuffmanMMapIndexedDataset):
        return CodedText(dataset, dictionary)
    if isinstance(dataset, ConcatDataset):
        dataset.datasets = [readable_in_any_order(part, dictionary) for part in dataset.datasets]
    elif hasattr(dataset, "dataset"):
        dataset.dataset = readable_in_any_order(dataset.dataset, dictionary)
    return dataset
