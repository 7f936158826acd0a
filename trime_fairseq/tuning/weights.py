"""The weights of a mixture that give a text the highest probability: exact, since the problem is concave.

The target of a token has the probability q_0 + w_1 (q_1 - q_0) + w_2 (q_2 - q_0), where q_0 is the first
distribution's. Each token is scaled by the largest of the three, so that nothing overflows, and
log-probabilities of -inf are ordinary. All sums are float64.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Steps until a solution is exact: Newton's double the digits, those that halve an interval add one.
_STEPS = 60
# In nats of the whole text: a step that promises less is the last.
_ENOUGH = 1e-10
# Nearer to an edge than this, the solution is looked for on the edge, too.
_NEAR = 1e-5


def solve_weights(log_probs: Sequence[Tensor], fixed: Sequence[float | None] = ()) -> tuple[float, ...]:
    """Weights of all distributions but the first, each in [0, 1], of a sum of at most 1.

    Args:
        log_probs: of the targets by each of one to three distributions, floating point [N]. Where one of them
            says nothing, pass the first one's.
        fixed: for each but the first the weight that it keeps, None where it is solved for; by default all
            are. Fixed weights sum to at most 1.

    Raises:
        ValueError: for more than three distributions.
    """
    free = list(fixed) or [None] * (len(log_probs) - 1)
    first, *others = _scaled(log_probs)
    if None not in free:
        return tuple(weight for weight in free if weight is not None)
    if free == [None]:
        return (_between(first, others[0]),)
    if free == [None, None]:
        return _two(first, others[0], others[1])
    if len(free) == 2:
        # What the other weight leaves is shared by two.
        solved = free.index(None)
        weight = free[1 - solved] or 0.0
        rest = (1 - weight) * first + weight * others[1 - solved]
        found = (1 - weight) * _between(rest, rest + (1 - weight) * (others[solved] - first))
        return (found, weight) if solved == 0 else (weight, found)
    raise ValueError(f"weights of {len(log_probs)} distributions: two or three expected")


def _scaled(log_probs: Sequence[Tensor]) -> list[Tensor]:
    """Probabilities relative to the largest of each token, float64; without tokens that none can predict."""
    values = torch.stack([log_prob.double() for log_prob in log_probs])
    highest = values.amax(0)
    possible = highest > -torch.inf
    if not possible.all():
        values, highest = values[:, possible], highest[possible]
    return list((values - highest).exp_())


def _between(start: Tensor, end: Tensor) -> float:
    """The share of ``end`` that maximises the sum of log((1 - share) start + share end)."""
    difference = end - start
    if not (difference / start).nansum() > 0:
        return 0.0
    if not (difference / end).nansum() < 0:
        return 1.0
    low, high, share = 0.0, 1.0, 0.5
    for _ in range(_STEPS):
        relative = difference / torch.add(start, difference, alpha=share)
        slope, curvature = relative.sum().item(), relative.square_().sum().item()
        if slope > 0:
            low = share
        else:
            high = share
        step = slope / curvature
        if slope * step < _ENOUGH:
            break
        # Newton's step, where it stays inside of what is left.
        share = share + step if low < share + step < high else (low + high) / 2
    return share


def _two(first: Tensor, second: Tensor, third: Tensor) -> tuple[float, float]:
    """Weights of the second and third: inside of the triangle by Newton's method, or on one of its edges."""
    directions = torch.stack([second - first, third - first])
    inside, is_exact = _inside(first, directions)
    if is_exact:
        return inside[0].item(), inside[1].item()
    of_second, of_third, shared = _between(first, second), _between(first, third), _between(second, third)
    found = [(of_second, 0.0), (0.0, of_third), (1 - shared, shared)]
    candidates = [*found, (inside[0].item(), inside[1].item())]
    losses = [
        -_log_likelihood(first, directions, torch.tensor(weights, dtype=torch.float64))
        for weights in candidates
    ]
    return candidates[losses.index(min(losses))]


def _inside(first: Tensor, directions: Tensor) -> tuple[Tensor, bool]:
    """Two weights, float64 [2], and whether they are the solution: not if that lies at an edge."""
    weights = torch.full((2,), 1 / 3, dtype=torch.float64, device=first.device)
    value = _log_likelihood(first, directions, weights)
    for _ in range(_STEPS):
        relative = directions / (first + weights @ directions)
        slope = relative.sum(1)
        curvature = relative @ relative.t()
        curvature += torch.eye(2).to(curvature) * (1e-12 * curvature.trace() + 1e-300)
        step = torch.linalg.solve(curvature, slope)
        if (slope @ step).item() < _ENOUGH:
            return weights, _distance(weights) > _NEAR
        length = _longest(weights, step)
        while length > 1e-9:
            tried = weights + length * step
            reached = _log_likelihood(first, directions, tried)
            if reached >= value:
                break
            length /= 2
        else:
            break
        weights, value = tried, reached
        if _distance(weights) < _NEAR:
            break
    return weights, False


def _longest(weights: Tensor, step: Tensor) -> float:
    """How much of a step to take: all, or nine tenths of the way to the edge."""
    room = torch.cat([weights, 1 - weights.sum(0, keepdim=True)])
    closer = torch.cat([-step, step.sum(0, keepdim=True)])
    ways = torch.where(closer > 0, room / closer, torch.inf)
    return min(1.0, 0.9 * ways.min().item())


def _distance(weights: Tensor) -> float:
    """Of two weights to the nearest edge."""
    return min(weights.min().item(), 1 - weights.sum().item())


def _log_likelihood(first: Tensor, directions: Tensor, weights: Tensor) -> float:
    return (first + weights.to(first.device) @ directions).clamp_(min=0.0).log_().sum().item()
