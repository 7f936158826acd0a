"""Time and peak memory of trime_mt_loss, forward and backward, against the published steps.

    python benchmarks/mt_criterion.py [--shape 4096x6632 8192x1000] [--width 512] [--sentence 32] [--topk 8]
        [--metric ip] [--impl published trime_mt_loss cross-entropy] [--rounds 3] [--repeats 2] [--cpu]

A shape is TOKENSxTYPES: target tokens of a batch without padding, in sentences of equal length, and types of
the vocabulary. A step is the projection to the vocabulary, the token softmax, the memory, the loss and all
gradients, from random decoder outputs. Each runs in processes of its own, so that its peak memory is its own;
the implementations take turns. On a CPU the time is that of the processor, in all threads: a shared machine
lets a process wait.

"published" has the steps of the published formulas, by autograd: log-probabilities [N, V], similarities of
all queries and keys, masks of that size added as -10,000 (of the own sentence, and of padding), topk, both
log-sum-exps over token score and memories.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import common
import torch
from torch import Tensor
from torch.nn import functional

from trime_fairseq.memory import Visibility, linear_joint_loss, nearest_lse, similarity_scale

IMPLEMENTATIONS = ("published", "trime_mt_loss", "cross-entropy")
TEMPERATURE = 10.0
_PAD = -1  # no target is: batches have no padding


@dataclass(frozen=True)
class Work:
    """What is measured: one of ``IMPLEMENTATIONS``, sizes, and where.

    Attributes:
        tokens, types, width: N, V and d.
        sentence: tokens of each sentence.
        topk: memories of a token.
        metric: ip or l2.
        repeats: steps that are timed in a process, after a first one.
        device: as PyTorch spells it.
    """

    impl: str
    tokens: int
    types: int
    width: int
    sentence: int
    topk: int
    metric: str
    repeats: int
    device: str


def published_loss(
    features: Tensor, weight: Tensor, target: Tensor, sentence: int, topk: int, metric: str
) -> Tensor:
    """The summed loss by N x V and N x M matrices."""
    logits = functional.linear(features, weight)
    token_lse = logits.logsumexp(-1)
    log_prob = functional.log_softmax(logits, dim=-1, dtype=torch.float32)
    target_logit = log_prob.gather(1, target.unsqueeze(1)).squeeze(1) + token_lse
    similarity = torch.matmul(features, features.t())
    if metric == "l2":
        squares = features.square().sum(-1)
        similarity = -(squares.unsqueeze(1) + squares.unsqueeze(0) - 2 * similarity)
    similarity = similarity / features.size(1) ** 0.5
    sentences = torch.arange(len(features), device=features.device) // sentence
    similarity = similarity + -10000.0 * (sentences.unsqueeze(1) == sentences.unsqueeze(0)).float()
    similarity = similarity + -10000.0 * (target == _PAD).float().unsqueeze(0)
    values, indices = (similarity / TEMPERATURE).topk(topk, dim=-1)
    other = -10000.0 * (target[indices] != target.unsqueeze(1)).float()
    every = torch.cat([token_lse.unsqueeze(1), values], dim=1)
    positive = torch.cat([target_logit.unsqueeze(1), values + other], dim=1)
    return (every.logsumexp(1) - positive.logsumexp(1)).sum()


def our_loss(
    features: Tensor, weight: Tensor, target: Tensor, sentence: int, topk: int, metric: str
) -> Tensor:
    """The same as ``--criterion trime_mt_loss`` computes it."""
    begins = range(0, len(features), sentence)
    visibility = Visibility.all_but([(begin, begin + sentence, sentence) for begin in begins], len(features))
    scale = similarity_scale(features.size(1), TEMPERATURE)
    lses = nearest_lse(features, features, target, target, visibility, scale, topk=topk, metric=metric)
    return linear_joint_loss(features, weight, None, target, *lses)[0]


def cross_entropy(features: Tensor, weight: Tensor, target: Tensor, *_: object) -> Tensor:
    """Without memories, by PyTorch."""
    return functional.cross_entropy(functional.linear(features, weight), target, reduction="sum")


LOSSES: dict[str, Callable[..., Tensor]] = dict(
    zip(IMPLEMENTATIONS, (published_loss, our_loss, cross_entropy))
)


def make_step(work: Work) -> tuple[Callable[[], Tensor], tuple[Tensor, Tensor]]:
    """A step, which returns the loss; and the tensors that it gives gradients to."""
    torch.manual_seed(1)
    features = torch.randn(work.tokens, work.width, device=work.device, requires_grad=True)
    weight = torch.randn(work.types, work.width, device=work.device).mul_(work.width**-0.5).requires_grad_()
    # A few frequent words, as in text.
    target = (work.types * torch.rand(work.tokens) ** 4).long().to(work.device)

    def step() -> Tensor:
        features.grad = weight.grad = None
        loss = LOSSES[work.impl](features, weight, target, work.sentence, work.topk, work.metric)
        loss.backward()
        return loss.detach()

    return step, (features, weight)


def measure(work: Work) -> dict[str, list[float]]:
    """Seconds of steps, and the peak bytes beyond the inputs."""
    step, _ = make_step(work)
    inputs = common.start_peak(work.device)
    seconds = []
    clock = time.process_time if work.device == "cpu" else time.perf_counter
    for _ in range(work.repeats + 1):
        common.synchronize()
        started = clock()
        step()
        common.synchronize()
        seconds.append(clock() - started)
    return {"seconds": seconds[1:], "over": [common.peak_bytes(work.device) - inputs]}


def run(work: Work) -> dict[str, list[float]]:
    """:func:`measure` in another process."""
    environment = {**os.environ, "MT_CRITERION": json.dumps(asdict(work))}
    command = [sys.executable, __file__]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    if child.returncode:
        sys.exit(child.stderr[-2000:])
    found: dict[str, list[float]] = json.loads(child.stdout.splitlines()[-1])
    return found


HEADER = ("tokens, types, d", "metric", "implementation", "ms", "time", "GB over inputs", "memory")


def rows_of(
    shape: tuple[int, int], impls: list[str], args: argparse.Namespace, device: str
) -> list[list[str]]:
    """A line per implementation; "time" and "memory" are shares of the published steps'."""
    found: dict[str, dict[str, list[float]]] = {impl: {"seconds": [], "over": []} for impl in impls}
    sizes = (*shape, args.width, args.sentence, args.topk, args.metric, args.repeats, device)
    for _ in range(args.rounds):
        for impl in impls:
            for name, values in run(Work(impl, *sizes)).items():
                found[impl][name] += values
    seconds, over = (
        {impl: statistics.median(found[impl][name]) for impl in impls} for name in ("seconds", "over")
    )

    def share(of: dict[str, float], impl: str) -> str:
        return f"{of[impl] / of['published']:.2f}" if "published" in of else ""

    return [
        [
            f"{shape[0]:,}, {shape[1]:,}, {args.width}",
            args.metric,
            {"published": "published steps", "cross-entropy": "cross-entropy alone"}.get(impl, impl),
            f"{1e3 * seconds[impl]:,.0f}",
            share(seconds, impl),
            f"{over[impl] / 1e9:.3f}",
            share(over, impl),
        ]
        for impl in impls
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=["4096x6632", "8192x1000"])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--sentence", type=int, default=32, help="tokens of a sentence")
    parser.add_argument("--topk", type=int, default=8)
    parser.add_argument("--metric", choices=("ip", "l2"), default="ip")
    parser.add_argument("--impl", nargs="+", choices=IMPLEMENTATIONS, default=list(IMPLEMENTATIONS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() and not args.cpu else "cpu"
    rows: list[list[str]] = []
    for shape in args.shape:
        tokens, types = map(int, shape.split("x"))
        rows += rows_of((tokens, types), args.impl, args, device)
    title = f"trime_mt_loss, forward and backward, float32, topk {args.topk}"
    common.report(title, HEADER, rows, "mt-criterion")


if __name__ == "__main__":
    common.quiet()
    if "MT_CRITERION" in os.environ:
        print(json.dumps(measure(Work(**json.loads(os.environ["MT_CRITERION"])))))
    else:
        main()
