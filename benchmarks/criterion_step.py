"""One line of ``benchmarks/criterion.py``: a criterion's step on random features, in its own process.

The step is that of the criterions: token scores of an adaptive softmax, log-sum-exps over the memory, their
loss and all gradients. The baseline ``naive`` has the steps of the published code: similarities of all
queries and keys, masks of that size added as -10,000, both log-sum-exps over token score and memories, by
autograd.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import common
import torch
from torch import Tensor

from trime_fairseq.memory import (
    Visibility,
    adaptive_token_scores,
    memory_lse,
    similarity_scale,
    start_gather,
    trime_log_prob,
)

IMPLEMENTATIONS = ("naive", "chunked", "triton", "none")


@dataclass(frozen=True)
class Work:
    """What is measured.

    Attributes:
        impl: one of ``IMPLEMENTATIONS``; "none" is the cross-entropy alone.
        memory: local (earlier tokens of the segment), long (all earlier tokens) or ext (all but the later
            tokens of the segment).
        queries: tokens of all ranks that are scored.
        memories: keys, the last ones those of the queries.
        segment: tokens of a segment.
        width: d.
        types: words of the adaptive softmax.
        repeats: steps that are timed, after a first one.
        device, dtype: as PyTorch spells them.
    """

    impl: str
    memory: str
    queries: int
    memories: int
    segment: int
    width: int
    types: int
    repeats: int
    device: str
    dtype: str


def visibility_of(work: Work, queries: int, before: int) -> Visibility:
    """What ``queries`` tokens of a rank see, with ``before`` keys before theirs."""
    lengths = (work.segment,) * (queries // work.segment)
    if work.memory == "local":
        return Visibility.own_segment(len(lengths), work.segment)
    if work.memory == "long":
        return Visibility.consecutive(work.segment, lengths, before)
    return Visibility.all_segments(work.segment, lengths, before, work.memories, False)


def visible_pairs(visibility: Visibility, keys_per_part: int) -> int:
    """Similarities that count, in all parts."""
    rows = visibility.rows_on(torch.device("cpu")).long().clamp(0, keys_per_part)
    begin, end, skip_begin, skip_end = rows
    skipped = (torch.minimum(end, skip_end) - torch.maximum(begin, skip_begin)).clamp_min(0)
    return int(((end - begin).clamp_min(0) - skipped).sum()) * visibility.repeats


def published_loss(
    token_lse: Tensor, target_logit: Tensor, queries: Tensor, keys: Tensor, targets: Tensor, tokens: Tensor,
    visibility: Visibility,
) -> Tensor:  # fmt: skip
    """The loss by N x M matrices."""
    similarity = torch.matmul(queries, keys.t()) / queries.size(1) ** 0.5
    hidden = -10000.0 * visibility.dense(len(keys), queries.device).float()
    other = -10000.0 * (targets.unsqueeze(1) != tokens.unsqueeze(0)).float()
    every = torch.cat([token_lse.unsqueeze(1), similarity.float() + hidden], dim=1)
    positive = torch.cat([target_logit.unsqueeze(1), similarity.float() + hidden + other], dim=1)
    return every.logsumexp(1) - positive.logsumexp(1)


def make_step(work: Work, rank: int, ranks: int) -> tuple[Callable[[], None], int]:
    """A step of a rank, and the multiplications and additions of its memory, forward and backward, with the
    similarities computed twice."""
    from fairseq.modules import AdaptiveSoftmax

    torch.manual_seed(rank)
    device, dtype = torch.device(work.device), getattr(torch, work.dtype)
    count = work.queries // ranks
    cutoff = [work.types // 5, work.types * 3 // 5]
    softmax = AdaptiveSoftmax(work.types, work.width, cutoff, dropout=0.0).to(device, dtype)
    features, representation = (
        torch.randn(count, work.width, device=device, dtype=dtype, requires_grad=True) for _ in range(2)
    )
    # A few frequent words, as in text: of 500 types one pair in twenty is positive.
    host_target = (work.types * torch.rand(count) ** 4).long()
    target = host_target.to(device)
    # Keys that this rank would have been sent by ranks that are not there.
    elsewhere = work.memories - work.queries
    others = torch.randn(elsewhere, work.width, device=device, dtype=dtype)
    other_tokens = (work.types * torch.rand(elsewhere) ** 4).long().to(device)
    visibility = visibility_of(work, count, elsewhere + rank * count)

    def step() -> None:
        for tensor in (features, representation, *softmax.parameters()):
            tensor.grad = None
        pending = start_gather(representation, target, (count,) * ranks, rank)
        scores = adaptive_token_scores(softmax, features, target, host_target=host_target.numpy())
        if work.impl == "none":
            (scores[0] - scores[1]).sum().backward()
            return
        keys, tokens, key_grad = pending.wait()
        if elsewhere:
            begin, end = key_grad or (0, len(keys))
            keys, tokens = torch.cat([others, keys]), torch.cat([other_tokens, tokens])
            key_grad = (begin + elsewhere, end + elsewhere)
        if work.impl == "naive":
            loss = published_loss(*scores, representation, keys, target, tokens, visibility)
        else:
            lse = memory_lse(
                representation,
                keys,
                target,
                tokens,
                visibility,
                similarity_scale(work.width),
                key_grad=key_grad,
                impl=work.impl,
            )
            loss = -trime_log_prob(*scores, *lse)
        loss.sum().backward()

    keys_per_part = work.memories // visibility.repeats
    return step, 2 * 4 * work.width * visible_pairs(visibility, keys_per_part)


def measure(work: Work, rank: int, ranks: int, meeting_point: str) -> dict[str, float]:
    """Median seconds of a step, peak bytes over the inputs and of the whole process, the operations of the
    memory, and those that the device's own matrix product does in a second."""
    if ranks > 1:
        backend = "nccl" if work.device == "cuda" and torch.cuda.device_count() >= ranks else "gloo"
        torch.distributed.init_process_group(backend, f"file://{meeting_point}", rank=rank, world_size=ranks)
        if backend == "nccl":
            torch.cuda.set_device(rank)
    step, operations = make_step(work, rank, ranks)
    inputs = common.start_peak(work.device)
    seconds = [_seconds(step) for _ in range(work.repeats + 1)]
    peak = common.peak_bytes(work.device)
    return {
        "seconds": statistics.median(seconds[1:]),
        "over": peak - inputs,
        "peak": peak,
        "operations": operations,
        "rate": matmul_rate(work.device, work.dtype),
    }


def matmul_rate(device: str, dtype: str) -> float:
    """Operations per second of a large product."""
    size = 8192 if device == "cuda" else 2048
    first, second = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    seconds = [_seconds(lambda: torch.mm(first, second)) for _ in range(6)]
    return 2 * size**3 / statistics.median(seconds[1:])


def _seconds(call: Callable[[], Any]) -> float:
    common.synchronize()
    started = time.perf_counter()
    call()
    common.synchronize()
    return time.perf_counter() - started


def profile(work: Work, rows: int) -> str:
    """The dearest operations of a step, as a table; the trace goes to benchmarks/out."""
    from torch.profiler import ProfilerActivity

    step, _ = make_step(work, 0, 1)
    step()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (work.device == "cuda")
    with torch.profiler.profile(activities=activities) as found:
        step()
        common.synchronize()
    path = common.ROOT / "benchmarks" / "out" / f"criterion-{work.memory}-{work.impl}.trace.json"
    path.parent.mkdir(exist_ok=True)
    found.export_chrome_trace(str(path))
    averages = found.key_averages()
    return averages.table(sort_by=f"self_{work.device}_time_total", row_limit=rows, max_name_column_width=40)


def main() -> None:
    common.quiet()
    work, *rank = json.loads(os.environ["CRITERION_STEP"])
    if rank:
        sys.stdout.write(json.dumps(measure(Work(**work), *rank)) + "\n")
    else:
        sys.stdout.write(profile(Work(**work), 12) + "\n")


if __name__ == "__main__":
    main()
