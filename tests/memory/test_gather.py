"""Gathering over several processes against one process that holds everything."""

import sys

import pytest
import torch

from tests.commands import run_ranks
from trime_fairseq.memory import Visibility, memory_lse, start_gather
from trime_fairseq.memory.gather import _pack, _unpack_tokens


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tokens_travel_bit_by_bit(dtype):
    keys, tokens = torch.randn(5, 3).to(dtype), torch.tensor([0, 1, 267_744, 2**31 - 1, 31_745])
    packed = _pack(keys, tokens)
    assert packed.dtype == dtype
    assert torch.equal(packed[:, :3], keys)
    assert torch.equal(_unpack_tokens(packed[:, 3:]), tokens)


def test_alone_nothing_is_copied():
    keys, tokens = torch.randn(5, 3, requires_grad=True), torch.arange(5)
    gathered = start_gather(keys, tokens, (5,), 0).wait()
    assert gathered.keys is keys
    assert gathered.tokens is tokens
    assert gathered.key_grad is None


def test_refusals():
    keys, tokens = torch.randn(5, 3), torch.arange(5)
    with pytest.raises(ValueError, match="5 keys where the group expects 4 of rank 1"):
        start_gather(keys, tokens, (5, 4), 1)
    with pytest.raises(ValueError, match="do not divide into groups of 2"):
        start_gather(keys, tokens, (5, 4), 0)


@pytest.mark.process
@pytest.mark.slow
def test_gradients(tmp_path):
    """share_gradient: as if one process held all. Without: of one's own loss only. One rank is empty."""
    torch.manual_seed(2)
    parts = [torch.randn(n, 6, dtype=torch.float64) for n in (4, 2, 0)]
    tokens = [torch.randint(0, 3, (len(part),)) for part in parts]
    for name in ("shared", "own"):
        torch.save({"parts": parts, "tokens": tokens}, tmp_path / f"{name}.pt")
    run_ranks([sys.executable, "-m", "tests.ranks", "shared_gradient", tmp_path, "shared", "own"], 3)

    begin = 0
    together, all_tokens = torch.cat(parts).requires_grad_(), torch.cat(tokens)
    loss_of([together], [all_tokens], together, all_tokens, 0).backward()
    for rank, (part, own_tokens) in enumerate(zip(parts, tokens)):
        shared, own = (torch.load(tmp_path / f"{name}.{rank}.pt") for name in ("shared", "own"))
        assert torch.equal(shared["tokens"], all_tokens)
        torch.testing.assert_close(shared["grad"], together.grad[begin : begin + len(part)])

        alone = part.clone().requires_grad_()
        keys = torch.cat([*parts[:rank], alone, *parts[rank + 1 :]])
        loss_of([alone], [own_tokens], keys, all_tokens, begin).backward()
        torch.testing.assert_close(own["grad"], alone.grad)
        begin += len(part)


def loss_of(queries, targets, keys, tokens, before):
    count = len(queries[0])
    visibility = Visibility.consecutive(count, (count,), before)
    found = memory_lse(queries[0], keys, targets[0], tokens, visibility, 0.5, impl="naive")
    return sum(part[part.isfinite()].sum() for part in found)
