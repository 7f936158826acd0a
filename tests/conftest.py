import os

import pytest
import torch

# Without a CUDA device the kernels run in Triton's interpreter, asked for before they are imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from fairseq.data import Dictionary


@pytest.fixture
def dictionary():
    words = Dictionary()
    for word in "abcdefghijklmnop":
        words.add_symbol(word)
    return words
