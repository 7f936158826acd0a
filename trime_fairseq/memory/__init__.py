"""The TRIME objective and its memories, in plain PyTorch (no fairseq import)."""

from .gather import Gathered, start_gather
from .long_term import LongTermMemory
from .lse import IMPLEMENTATIONS, memory_lse
from .neighbors import interpolate, neighbor_lse
from .objective import memory_mass, positive_share, similarity_scale, trime_log_prob
from .token_scores import adaptive_token_scores, linear_token_scores, plain_token_scores
from .visibility import Visibility

__all__ = [
    "IMPLEMENTATIONS",
    "Gathered",
    "LongTermMemory",
    "Visibility",
    "adaptive_token_scores",
    "interpolate",
    "linear_token_scores",
    "memory_lse",
    "memory_mass",
    "neighbor_lse",
    "plain_token_scores",
    "positive_share",
    "similarity_scale",
    "start_gather",
    "trime_log_prob",
]
