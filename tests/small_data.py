"""Toy texts in fairseq's datasets, and the beginning of the reference text."""

import numpy as np
import torch
from fairseq.data import MonolingualDataset, TokenBlockDataset
from fairseq.data.indexed_dataset import MMapIndexedDataset, MMapIndexedDatasetBuilder

from tests.commands import REFERENCE


def cut_text(folder, tokens):
    """Writes the binarised reference text in words whose valid and test have ``tokens``, or a line
    more."""
    text = REFERENCE / "data" / "word"
    for name in ("dict.txt", "train.bin", "train.idx"):
        (folder / name).symlink_to(text / name)
    for split in ("valid", "test"):
        builder = MMapIndexedDatasetBuilder(str(folder / f"{split}.bin"), dtype=np.uint16)
        left = tokens
        for line in MMapIndexedDataset(str(text / split)):
            if left <= 0:
                break
            builder.add_item(line)
            left -= len(line)
        builder.finalize(str(folder / f"{split}.idx"))


class Text(torch.utils.data.Dataset):
    """Lines of running numbers: the token says where it stands."""

    def __init__(self, lengths, eos):
        self.sizes = np.array(lengths)
        ends = np.cumsum(self.sizes)
        self.lines = [torch.tensor([*range(end - n + 10, end + 9), eos]) for end, n in zip(ends, self.sizes)]

    def __getitem__(self, index):
        return self.lines[index]

    def __len__(self):
        return len(self.lines)


def monolingual(dictionary, lengths, tokens_per_sample, break_mode):
    text = Text(lengths, dictionary.eos())
    blocks = TokenBlockDataset(
        text,
        text.sizes,
        tokens_per_sample,
        pad=dictionary.pad(),
        eos=dictionary.eos(),
        break_mode=break_mode,
        include_targets=True,
    )
    return MonolingualDataset(blocks, blocks.sizes, dictionary, targets=["future"], shuffle=True)
