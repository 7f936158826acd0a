"""The TRIME objective and its memories, in plain PyTorch. Nothing here needs fairseq.

A training step: :class:`Visibility` says which keys each query sees, :func:`memory_lse` sums over them, and
:func:`trime_log_prob` puts the sums and the token softmax together::

    visibility = Visibility.own_segment(num_segments, length)
    token_lse, target_logit = plain_token_scores(logits, targets)
    all_lse, positive_lse = memory_lse(
        queries, keys, targets, tokens, visibility, similarity_scale(queries.size(1))
    )
    loss = -trime_log_prob(token_lse, target_logit, all_lse, positive_lse).mean()
"""

from .gather import Gathered, PendingCounts, PendingGather, start_counts, start_gather
from .interpolation import Weighted, interpolate, remaining_weight
from .joint_loss import linear_joint_loss
from .long_term import LongTermMemory
from .lse import IMPLEMENTATIONS, memory_lse
from .nearest import METRICS, nearest_lse
from .neighbors import neighbor_lse
from .objective import memory_mass, positive_share, similarity_scale, trime_log_prob
from .scales import memory_lse_at_scales
from .token_scores import adaptive_token_scores, linear_token_scores, plain_token_scores
from .visibility import Visibility

__all__ = [
    "IMPLEMENTATIONS",
    "Gathered",
    "LongTermMemory",
    "METRICS",
    "PendingCounts",
    "PendingGather",
    "Visibility",
    "Weighted",
    "adaptive_token_scores",
    "interpolate",
    "linear_joint_loss",
    "linear_token_scores",
    "memory_lse",
    "memory_lse_at_scales",
    "memory_mass",
    "nearest_lse",
    "neighbor_lse",
    "plain_token_scores",
    "positive_share",
    "remaining_weight",
    "similarity_scale",
    "start_counts",
    "start_gather",
    "trime_log_prob",
]
