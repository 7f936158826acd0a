"""The two log-sum-exps over a memory that the TRIME objective needs, without the N x M matrix."""

import math
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from .autograd import LseInputs
from .autotune import triton_if_faster
from .chunked import chunked_lse
from .numerics import accumulation_dtype, without_autocast
from .visibility import Visibility

# Names of ``impl``.
IMPLEMENTATIONS = ("auto", "chunked", "triton", "naive")


def memory_lse(
    queries: Tensor,
    keys: Tensor,
    query_targets: Tensor,
    key_tokens: Tensor,
    visibility: Visibility,
    scale: float,
    *,
    key_grad: tuple[int, int] | None = None,
    impl: str = "auto",
    tile: tuple[int, int] = (0, 0),
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of the scaled similarities to all visible keys, and to those with the target's token.

    Equal to, with ``sim = scale * queries @ keys.T`` set to -inf where ``visibility`` hides a key::

        all_lse = sim.logsumexp(1)                                            # A in the objective
        positive_lse = sim.masked_fill(key_tokens != query_targets[:, None], -inf).logsumexp(1)    # P

    but the chunked implementation holds one tile of ``sim`` at a time, recomputes it in backward and
    never computes tiles that no query may see. Sums are float32 (float64 for float64 inputs) whatever
    the dtype of the inputs. Rows without a visible (or positive) key give -inf, and zero gradients.

    Args:
        queries: g(c) of the scored tokens, [N, d], floating point.
        keys: g(c_j) of the memory, [M, d], of the same dtype.
        query_targets: token that follows each query, int64 [N].
        key_tokens: token that followed each key, int64 [M].
        visibility: which keys each query sees; N rows.
        scale: factor of the dot products, :func:`trime_fairseq.memory.similarity_scale`.
        key_grad: the range [begin, end) of keys that get a gradient, by default all. Keys gathered from
            other devices have none, and it is not computed for them.
        impl: ``chunked``, ``triton``, ``naive`` (the two lines above: for tests and baselines) or ``auto``:
            on CUDA ``triton`` if it is faster there (:mod:`trime_fairseq.memory.autotune`), else ``chunked``.
        tile: the most queries and keys per tile, of the chunked implementation and of Triton's backward;
            0 chooses by device.

    Returns:
        ``all_lse`` and ``positive_lse``, float32 (float64 for float64 inputs) of shape [N].
        Differentiable once, with respect to ``queries`` and ``keys``.

    Raises:
        ValueError: if shapes or dtypes do not fit, or ``impl`` is unknown or not installed.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"unknown impl {impl!r}: one of {', '.join(IMPLEMENTATIONS)}")
    check_inputs(queries, keys, query_targets, key_tokens, visibility, key_grad)
    inputs = LseInputs(
        queries, keys, query_targets, key_tokens, visibility, scale, key_grad or (0, keys.size(0)), tile
    )
    # Under autocast the products below would be rounded to half precision.
    with without_autocast(queries.device.type):
        if impl == "naive":
            return _naive(inputs)
        if impl == "triton":
            lses: tuple[Tensor, Tensor] = _triton().triton_lse(inputs)
            return lses
        if impl == "auto" and queries.is_cuda and _has_triton(queries.dtype):
            found = triton_if_faster(inputs, _triton().triton_lse)
            if found is not None:
                return found
        return chunked_lse(inputs)


@cache
def _has_triton(dtype: torch.dtype) -> bool:
    """True if the kernels can be imported and take a dtype."""
    try:
        return dtype in _triton().DTYPES
    except Exception:
        return False  # another Triton than PyTorch's may raise anything when it is imported


def _triton() -> ModuleType:
    # Triton comes with PyTorch for CUDA only.
    try:
        from . import triton_lse
    except ImportError as error:
        raise ValueError(f"impl='triton' needs Triton, which is not installed: {error}") from error
    return triton_lse


def check_inputs(
    queries: Tensor,
    keys: Tensor,
    query_targets: Tensor,
    key_tokens: Tensor,
    visibility: Visibility,
    key_grad: tuple[int, int] | None,
) -> None:
    """Raises ValueError if these arguments of :func:`memory_lse` do not fit each other."""
    if queries.dim() != 2 or keys.dim() != 2 or queries.size(1) != keys.size(1):
        raise ValueError(
            f"queries [N, d] and keys [M, d] expected, got {tuple(queries.shape)} and {tuple(keys.shape)}"
        )
    if queries.dtype != keys.dtype or not queries.is_floating_point():
        raise ValueError(f"queries are {queries.dtype}, keys are {keys.dtype}")
    if query_targets.shape != queries.shape[:1] or key_tokens.shape != keys.shape[:1]:
        raise ValueError("one target per query and one token per key expected")
    if keys.size(0) % visibility.repeats:
        raise ValueError(f"{keys.size(0)} keys do not divide into {visibility.repeats} parts")
    if visibility.num_queries != queries.size(0):
        raise ValueError(f"visibility has {visibility.num_queries} rows for {queries.size(0)} queries")
    if key_grad is not None and (
        visibility.repeats > 1 or not 0 <= key_grad[0] <= key_grad[1] <= keys.size(0)
    ):
        raise ValueError(f"key_grad {key_grad} is no range of the {keys.size(0)} keys of one part")


def _naive(inputs: LseInputs) -> tuple[Tensor, Tensor]:
    queries, keys, (begin, end) = inputs.queries, inputs.keys, inputs.key_grad
    keys = torch.cat([keys[:begin].detach(), keys[begin:end], keys[end:].detach()])
    dtype = accumulation_dtype(queries.dtype)
    similarity = inputs.scale * (queries.to(dtype) @ keys.to(dtype).t())
    hidden = inputs.visibility.dense(keys.size(0), queries.device)
    negative = hidden | (inputs.key_tokens != inputs.query_targets.unsqueeze(1))
    return _masked_lse(similarity, hidden), _masked_lse(similarity, negative)


def _masked_lse(similarity: Tensor, hidden: Tensor) -> Tensor:
    if similarity.size(1) == 0:
        return similarity.new_full((similarity.size(0),), -math.inf)
    nothing = hidden.all(1)
    # The gradient of logsumexp over nothing but -inf is NaN, also where its result is not used.
    hidden = hidden & ~nothing.unsqueeze(1)
    lse = similarity.masked_fill(hidden, -math.inf).logsumexp(1)
    return lse.masked_fill(nothing, -math.inf)
