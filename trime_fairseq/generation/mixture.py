"""How the neighbours of a hypothesis join the model's distribution over its next token.

With the logits l, Z = logsumexp(l), the neighbours' scores a_j (larger is nearer), their tokens v_j, the
temperature T and d the dimension of the keys:

    s_j = a_j / (T sqrt(d))                      C = logsumexp(s)        lambda = exp(C - logaddexp(Z, C))
    p_kNN(v) = sum of exp(s_j - C) over v_j = v  p_net = softmax(l)

===================  ===============================================  =============
``trime``            (1 - lambda) p_net + lambda p_kNN                sums to 1
``trime-published``  (1 - lambda) p_net + p_kNN                       2 - lambda
``trime-normalized`` the same, divided by 2 - lambda                  1
``fix``              (1 - w) p_net + w p_kNN, with s_j = a_j / T      1
===================  ===============================================  =============

``trime`` is the distribution of training, exp(l_v) + sum of exp(s_j), normalised. ``fix`` is kNN-MT with
the weight w. ``trime-published`` is what the published TrimeMT computes: the neighbours' share is added
whole. Its log-probabilities may be positive. A query without neighbours keeps p_net, whatever the kind.

Everything is float32, in log space: a token far from both distributions keeps its probability.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..memory import similarity_scale

LAMBDA_TYPES = ("trime", "trime-published", "trime-normalized", "fix")
# The score of a neighbour that is not there. Not -inf, of which there are no differences.
_NOTHING = -1e30


@dataclass(frozen=True)
class Mixture:
    """A way to add neighbours to a distribution.

    Attributes:
        kind: one of :data:`LAMBDA_TYPES`.
        scale: factor of the neighbours' scores, positive.
        weight: w of ``fix``, in [0, 1); of no other kind.
    """

    kind: str
    scale: float
    weight: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in LAMBDA_TYPES:
            raise ValueError(f"`knn_lambda_type` {self.kind}: one of {', '.join(LAMBDA_TYPES)}")
        if self.kind == "fix" and (self.weight is None or not 0.0 <= self.weight < 1.0):
            raise ValueError(
                f"`knn_lambda_value`, the weight of fix, is needed, in [0, 1), not {self.weight}"
            )

    @classmethod
    def create(cls, kind: str, temperature: float, dimension: int, weight: float | None = None) -> "Mixture":
        """The mixture of a temperature T, for keys of ``dimension``."""
        scale = 1.0 / temperature if kind == "fix" else similarity_scale(dimension, temperature)
        return cls(kind, scale, weight)

    def log_probs(self, logits: Tensor, scores: Tensor, tokens: Tensor, divided_by: float = 1.0) -> Tensor:
        """Log-probabilities of all tokens.

        Args:
            logits: floating point [R, V].
            scores: of the neighbours, larger is nearer, floating point [R, k].
            tokens: of the neighbours, int64 [R, k]; -1 where there is none.
            divided_by: what the logits were divided by, the temperature of sampling: it sharpens p_net, but
                Z, and so lambda, is that of the logits before.

        Returns:
            float32 [R, V].
        """
        missing = tokens < 0
        tokens = tokens.clamp_min(0)
        # Differences first: of large scores a product with the scale would keep few digits.
        scores = scores.float().masked_fill(missing, -torch.inf)
        nearest = scores.amax(1, keepdim=True)
        scaled = ((scores - nearest) * self.scale).masked_fill(missing, _NOTHING)
        lse = scaled.logsumexp(1, keepdim=True)
        result = torch.log_softmax(logits, dim=1, dtype=torch.float32)
        of_net = result.gather(1, tokens)
        if divided_by == 1.0:
            token_lse = _token_lse(logits.gather(1, tokens).float(), of_net)
        else:
            token_lse = (logits.float() * divided_by).logsumexp(1, keepdim=True)
        net, memory = self._log_weights(token_lse, nearest * self.scale + lse)
        alone = missing.all(1, keepdim=True)
        net, memory = net.masked_fill(alone, 0.0), memory.masked_fill(alone, _NOTHING)
        share = memory + (_log_sums(scaled, tokens, logits.size(1)) - lse)
        # Neighbours of the same token all write the same.
        return result.add_(net).scatter_(1, tokens, torch.logaddexp(of_net + net, share))

    def _log_weights(self, token_lse: Tensor, memory_lse: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms [R, 1] of the weights of p_net and of p_kNN, where there are neighbours."""
        if self.kind == "fix":
            assert self.weight is not None
            net, memory = (torch.full_like(memory_lse, part) for part in (1 - self.weight, self.weight))
            return net.log(), memory.log()
        every = torch.logaddexp(token_lse, memory_lse)
        net, memory = token_lse - every, memory_lse - every
        if self.kind == "trime":
            return net, memory
        # 2 - lambda is 1 + (1 - lambda).
        mass = net.exp().log1p() if self.kind == "trime-normalized" else torch.zeros_like(net)
        return net - mass, -mass


def _token_lse(logits: Tensor, log_probs: Tensor) -> Tensor:
    """Z [R, 1] from the logits and log-probabilities [R, k] of some tokens, without another pass over all."""
    largest = logits.argmax(1, keepdim=True)
    return (logits - log_probs).gather(1, largest)


def _log_sums(scores: Tensor, tokens: Tensor, vocabulary: int) -> Tensor:
    """For every neighbour the log-sum-exp of the scores [R, k] of those that have its token."""
    size = (len(scores), vocabulary)
    largest = scores.new_full(size, _NOTHING).scatter_reduce_(1, tokens, scores, "amax").gather(1, tokens)
    sums = scores.new_zeros(size).scatter_add_(1, tokens, (scores - largest).exp())
    return largest + sums.gather(1, tokens).log()
