"""Keys and tokens of a group of devices, in one collective per step; and their numbers, in another."""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..distributed import rank, world_size


class Gathered(NamedTuple):
    """Keys [M, d] of all devices of a group in their order, the tokens that followed them [M], and the range
    [begin, end) of keys that have a gradient (None: all)."""

    keys: Tensor
    tokens: Tensor
    key_grad: tuple[int, int] | None = None

    def wait(self) -> "Gathered":
        """Itself: what never left the device need not be waited for."""
        return self


@dataclass(frozen=True)
class PendingGather:
    """Keys that travel between the devices of a group; :meth:`wait` gives them.

    Attributes:
        keys: of this rank, with their gradient.
        everyone: the buffer that fills: keys and tokens of all ranks, [ranks, most keys of a rank, ...].
        counts, member: as of :func:`start_gather`.
        work: of ``torch.distributed``.
        gradient_group: the process group that gradients are summed over; None: they are not.
    """

    keys: Tensor
    everyone: Tensor
    counts: tuple[int, ...]
    member: int
    work: Any
    gradient_group: Any

    def wait(self) -> Gathered:
        """The keys of the group, once all have arrived."""
        self.work.wait()
        begin = sum(self.counts[: self.member])
        keys, tokens = _GatherGradient.apply(  # type: ignore[no-untyped-call]
            self.keys, self.everyone, self.counts, begin, self.gradient_group
        )
        own = (begin, begin + self.counts[self.member])
        return Gathered(keys, tokens, own if self.gradient_group is None else None)


@dataclass(frozen=True)
class PendingCounts:
    """Numbers of keys that travel between all ranks; :meth:`wait` gives them.

    Attributes:
        everyone: the buffer that fills, int64 [ranks, 1].
        work: of ``torch.distributed``; None where there is one rank.
    """

    everyone: Tensor
    work: Any = None

    def wait(self) -> tuple[int, ...]:
        """The numbers of all ranks, in their order."""
        if self.work is not None and self.everyone.is_cuda:
            # On a stream of its own, the host waits for these numbers alone, and not for the model.
            stream = _copies(self.everyone.device)
            with torch.cuda.stream(stream):
                self.work.wait()
                host = torch.empty(self.everyone.shape, dtype=torch.int64, pin_memory=True)
                host.copy_(self.everyone, non_blocking=True)
            self.everyone.record_stream(stream)
            stream.synchronize()
            return tuple(host.flatten().tolist())
        if self.work is not None:
            self.work.wait()
        return tuple(self.everyone.flatten().tolist())


def start_counts(count: int, device: torch.device) -> PendingCounts:
    """Starts to tell all ranks how many keys this one has, where batches are not planned.

    Start before the model runs; the answer of :meth:`PendingCounts.wait` is what :func:`start_gather` takes::

        pending = start_counts(len(tokens), device)
        ...
        counts = pending.wait()

    Args:
        count: of this rank; 0 is allowed.
        device: where the keys are.
    """
    if world_size() == 1:
        return PendingCounts(torch.tensor([[count]]))
    # Other backends than NCCL send what lies in the memory of the host.
    place = device if dist.get_backend() == "nccl" else torch.device("cpu")
    local = torch.full((1,), count, dtype=torch.int64, device=place)
    everyone = local.new_empty(world_size(), 1)
    return PendingCounts(everyone, dist.all_gather(list(everyone.unbind(0)), local, async_op=True))


@cache
def _copies(device: torch.device) -> Any:
    """A stream for numbers that the host waits for."""
    return torch.cuda.Stream(device)


def start_gather(
    keys: Tensor, tokens: Tensor, counts: tuple[int, ...], member: int, share_gradient: bool = False
) -> Gathered | PendingGather:
    """Starts to exchange keys with the group of ``len(counts)`` consecutive ranks that this one belongs to.

    Do other work while keys travel, then call ``wait()`` on what is returned::

        pending = start_gather(keys, tokens, counts, member)
        ...
        keys, tokens, key_grad = pending.wait()

    All ranks know the number of keys of each other, because they plan batches alike: no sizes travel, and
    nothing waits for the device. Tokens ride in the same buffer as the keys, bit by bit.

    Args:
        keys: this rank's keys, floating point [n, d].
        tokens: the token that followed each, int64 [n], below 2**31.
        counts: number of keys of each rank of the group, n for this one; zeros are allowed.
        member: which of the group this rank is, ``rank % len(counts)``.
        share_gradient: gradients of all ranks' losses reach the keys, instead of this rank's only; one
            more collective, in backward.

    Raises:
        ValueError: if the counts do not fit the keys, or ``torch.distributed`` is not initialised for them.
    """
    if keys.size(0) != counts[member]:
        raise ValueError(f"{keys.size(0)} keys where the group expects {counts[member]} of rank {member}")
    if len(counts) == 1 or not any(counts):
        return Gathered(keys, tokens)
    group = _group_of(len(counts))
    packed = _pack(keys.detach(), tokens)
    local = packed.new_zeros(max(counts), packed.size(1))
    local[: packed.size(0)] = packed
    everyone = local.new_empty(len(counts), *local.shape)
    work = dist.all_gather(list(everyone.unbind(0)), local, group=group, async_op=True)
    return PendingGather(keys, everyone, counts, member, work, group if share_gradient else None)


@cache
def _group_of(size: int) -> Any:
    """The process group of ``size`` consecutive ranks with this one in it. A collective call: all ranks
    make it at their first step."""
    world = world_size()
    if world % size:
        raise ValueError(f"{world} processes do not divide into groups of {size}")
    if size == world:
        return dist.group.WORLD
    groups = [dist.new_group(list(range(first, first + size))) for first in range(0, world, size)]
    return groups[rank() // size]


class _GatherGradient(torch.autograd.Function):
    """Makes the keys of all ranks, which have arrived, a function of this rank's own."""

    @staticmethod
    def forward(
        ctx: Any, keys: Tensor, everyone: Tensor, counts: tuple[int, ...], before: int, group: Any
    ) -> tuple[Tensor, Tensor]:
        ctx.own, ctx.group = slice(before, before + keys.size(0)), group
        if len(set(counts)) == 1:
            rows = everyone.flatten(0, 1)
        else:
            rows = torch.cat([part[:count] for part, count in zip(everyone, counts)])
        width = keys.size(1)
        # Rows as wide as those of the buffer would not be aligned for the products to come.
        memory, memory_tokens = rows[:, :width].contiguous(), _unpack_tokens(rows[:, width:])
        ctx.mark_non_differentiable(memory_tokens)
        return memory, memory_tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        if ctx.group is not None:
            dtype = grad.dtype
            # Sums over devices in half precision would lose what each of them summed in float32.
            grad = grad.float() if grad.element_size() < 4 else grad.contiguous().clone()
            dist.all_reduce(grad, group=ctx.group)
            grad = grad.to(dtype)
        return (grad[ctx.own], None, None, None, None)


def _integer_like(dtype: torch.dtype) -> torch.dtype:
    return torch.int64 if dtype == torch.float64 else torch.int32


def _pack(keys: Tensor, tokens: Tensor) -> Tensor:
    """[n, d + 1 or 2]: the keys, and in the last columns the bits of the tokens. Only ever copied: as
    floating-point numbers these columns have no meaning."""
    bits = tokens.to(_integer_like(keys.dtype)).unsqueeze(1).view(keys.dtype)
    return torch.cat([keys, bits], dim=1)


def _unpack_tokens(bits: Tensor) -> Tensor:
    return bits.contiguous().view(_integer_like(bits.dtype)).squeeze(1).long()
