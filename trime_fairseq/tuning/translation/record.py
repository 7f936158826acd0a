"""What is known of every token of the references after one pass of model and search."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...generation import Mixture
from ...memory import neighbor_lse


@dataclass(frozen=True)
class ReferenceRecord:
    """Scores of the N tokens of the references, ends of sentences included, on the CPU.

    Attributes:
        token_lse, target_logit: Z and the logit of the target, float32 [N].
        scores: of the neighbours, larger is nearer, float32 [N, K]; -inf where there is none.
        tokens: of the neighbours, int32 [N, K]; -1 where there is none.
        targets: int64 [N].
        dimension: of the keys.
        sentences: number of references.
    """

    token_lse: Tensor
    target_logit: Tensor
    scores: Tensor
    tokens: Tensor
    targets: Tensor
    dimension: int
    sentences: int

    @property
    def without_memory(self) -> Tensor:
        """Log-probabilities of the targets by the model alone, float32 [N]."""
        return self.target_logit - self.token_lse

    def neighbors(self, kind: str, temperature: float, ks: tuple[int, ...]) -> "list[NeighborSums]":
        """What the nearest k neighbours say at a temperature, for each of ``ks``, which increase."""
        # The weight has no part in the scale.
        scale = Mixture.create(kind, temperature, self.dimension, 0.0).scale
        every, positive = neighbor_lse(self.scores, self.tokens, self.targets, [scale], ks)
        return [NeighborSums(*sums) for sums in zip(every[0], positive[0])]

    def log_prob(self, kind: str, sums: "NeighborSums", weight: float | None = None) -> Tensor:
        """Log-probabilities of the targets, float32 [N], as the decoder has them.

        Tokens other than the target make no difference among themselves. So the decoder's own mixture is
        asked, about a vocabulary of two: the target, and all the rest.
        """
        logits = torch.stack([self.target_logit, _difference(self.token_lse, self.target_logit)], 1)
        scores = torch.stack([sums.positive, sums.negative], 1)
        tokens = torch.arange(2).expand_as(scores).masked_fill(scores == -torch.inf, -1)
        return Mixture(kind, 1.0, weight).log_probs(logits, scores, tokens)[:, 0]


@dataclass(frozen=True)
class NeighborSums:
    """Log-sum-exps over the neighbours of each token, float32 [N]; -inf over none.

    Attributes:
        every: of all.
        positive: of those with the target's token.
    """

    every: Tensor
    positive: Tensor

    @property
    def negative(self) -> Tensor:
        """Of those with another token."""
        return _difference(self.every, self.positive)

    def log_prob(self, otherwise: Tensor) -> Tensor:
        """Log-probabilities of the targets by the neighbours alone; of tokens without any, ``otherwise``."""
        nothing = self.every == -torch.inf
        return torch.where(nothing, otherwise, self.positive - self.every.masked_fill(nothing, 0.0))


def _difference(larger: Tensor, smaller: Tensor) -> Tensor:
    """log(exp(larger) - exp(smaller)), -inf where they are equal."""
    nothing = larger == -torch.inf
    ratio = (smaller - larger.masked_fill(nothing, 0.0)).clamp_max(0.0)
    return (larger + torch.log1p(-ratio.exp())).masked_fill(nothing, -torch.inf)
