"""Toy texts in fairseq's datasets."""

import numpy as np
import torch
from fairseq.data import MonolingualDataset, TokenBlockDataset


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
