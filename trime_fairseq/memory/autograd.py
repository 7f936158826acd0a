"""The autograd function of ``memory_lse``: it recomputes similarities in backward instead of saving them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .numerics import accumulation_dtype, add_product, in_parts, relative_to_largest, without_autocast
from .tiling import Tile
from .visibility import Visibility


class LseInputs(NamedTuple):
    """What an implementation of :func:`trime_fairseq.memory.memory_lse` is given, checked.

    Attributes:
        queries, keys: [N, d] and [M, d].
        query_targets, key_tokens: integers [N] and [M].
        visibility: which keys each query sees.
        scale: factor of the dot products.
        key_grad: range [begin, end) of the keys that get a gradient.
        tile_size: the most queries and keys of a tile; (0, 0) is the implementation's choice.
    """

    queries: Tensor
    keys: Tensor
    query_targets: Tensor
    key_tokens: Tensor
    visibility: Visibility
    scale: float
    key_grad: tuple[int, int]
    tile_size: tuple[int, int] = (0, 0)

    def with_tile_size(self, default: tuple[int, int]) -> "LseInputs":
        """Fills in the sizes that the caller left to the implementation."""
        queries, keys = self.tile_size
        return self._replace(tile_size=(queries or default[0], keys or default[1]))

    def in_parts(self) -> "LseInputs":
        """Views of the tensors as [parts, rows per part, ...], which is what tiles index."""
        queries, keys, targets, tokens = in_parts(self.visibility.repeats, *self[:4])
        return self._replace(queries=queries, keys=keys, query_targets=targets, key_tokens=tokens)

    def tiles(self) -> list[Tile]:
        """Tiles that hold all visible pairs."""
        return self.visibility.tiles(self.keys.size(0) // self.visibility.repeats, self.tile_size)


# Both log-sum-exps [N] of the inputs: A and P of the objective.
Forward = Callable[[LseInputs], tuple[Tensor, Tensor]]
# The gradient in the scaled similarities of a tile, [parts, queries, keys], in the dtype of inputs or sums:
#
#     G = grad_all * exp(sim - all_lse) + [positive] * grad_positive * exp(sim - positive_lse)
#
# from the inputs, both log-sum-exps (+inf where nothing is seen) and the gradients in them, all in parts.
TileGradient = Callable[[LseInputs, tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tile], Tensor]


def recomputed_lse(inputs: LseInputs, forward: Forward, gradient: TileGradient) -> tuple[Tensor, Tensor]:
    """``forward(inputs)``, differentiable once in queries and keys. Only inputs and results are saved."""
    if not (torch.is_grad_enabled() and (inputs.queries.requires_grad or inputs.keys.requires_grad)):
        return forward(inputs)
    # Autograd only finds tensors that stand among the arguments themselves.
    lses: tuple[Tensor, Tensor] = _RecomputedLSE.apply(  # type: ignore[no-untyped-call]
        inputs.queries, inputs.keys, inputs, forward, gradient
    )
    return lses


class _RecomputedLSE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, inputs: LseInputs, forward: Forward, gradient: TileGradient
    ) -> tuple[Tensor, Tensor]:
        lses = forward(inputs)
        ctx.save_for_backward(*inputs[:4], *lses)
        ctx.settings, ctx.gradient = inputs[4:], gradient
        return lses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_all: Tensor, grad_positive: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, all_lse, positive_lse = ctx.saved_tensors
        inputs = LseInputs(*tensors, *ctx.settings)
        # exp(-inf - inf) = 0: a row that sees nothing has no gradient, where -inf - -inf is NaN.
        lses = tuple(lse.masked_fill(lse == -torch.inf, torch.inf) for lse in (all_lse, positive_lse))
        with without_autocast(all_lse.device.type):
            wanted = ctx.needs_input_grad[:2]
            return (*_gradients(inputs, lses, (grad_all, grad_positive), ctx.gradient, wanted), *[None] * 3)


def _gradients(
    inputs: LseInputs,
    lses: tuple[Tensor, ...],
    grads: tuple[Tensor, Tensor],
    gradient: TileGradient,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients in queries and keys, in their dtype; None where they are not wanted."""
    parts, dtype, tiles = inputs.visibility.repeats, inputs.queries.dtype, inputs.tiles()
    relative, unit = relative_to_largest(*grads)
    totals = [
        torch.zeros_like(t, dtype=accumulation_dtype(dtype), memory_format=torch.contiguous_format)
        if want
        else None
        for t, want in zip((inputs.queries, inputs.keys), wanted)
    ]
    grad_queries, grad_keys = (None if t is None else in_parts(parts, t)[0] for t in totals)
    all_lse, positive_lse, grad_all, grad_positive = in_parts(parts, *lses, *relative)
    inputs = inputs.in_parts()
    for tile in tiles:
        row, (shared, column) = tile.row, tile.column
        grad_tile = gradient(inputs, (all_lse, positive_lse), (grad_all, grad_positive), tile)
        if grad_queries is not None:
            add_product(grad_queries[row], grad_tile, inputs.keys[tile.column])
        begin, end = max(column.start, inputs.key_grad[0]), min(column.stop, inputs.key_grad[1])
        if grad_keys is not None and begin < end:
            part = grad_tile[..., begin - column.start : end - column.start]
            add_product(grad_keys[shared, begin:end], part.transpose(1, 2), inputs.queries[row])
    queries, keys = (None if t is None else t.mul_(unit * inputs.scale).to(dtype) for t in totals)
    return queries, keys
