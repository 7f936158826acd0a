"""What the implementations of :func:`trime_fairseq.memory.memory_lse` are given."""

from typing import List, NamedTuple, Tuple

import torch
from torch import Tensor

from .visibility import Visibility


class Inputs(NamedTuple):
    """The tensors: queries [N, d], keys [M, d], query_targets [N], key_tokens [M]."""

    queries: Tensor
    keys: Tensor
    query_targets: Tensor
    key_tokens: Tensor


class Plan(NamedTuple):
    """All the rest: what is seen, the factor of the dot products, queries and keys per tile, and the
    range [begin, end) of keys that get a gradient."""

    visibility: Visibility
    scale: float
    size: Tuple[int, int]
    key_grad: Tuple[int, int]


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def in_parts(repeats: int, *tensors: Tensor) -> List[Tensor]:
    """Views of shape [repeats, rows per part, ...]."""
    return [t.reshape(repeats, t.size(0) // repeats, *t.shape[1:]) for t in tensors]
