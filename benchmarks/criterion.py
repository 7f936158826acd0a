"""Time and peak memory of trime_loss, forward and backward: naive N x M matrices against chunks.

    python benchmarks/criterion.py [--types 500] [--repeats 5] [--cpu]

The criterion's own steps on random features: token scores of an adaptive softmax over --types words (few by
default: they cost both the same, and many hide the memory), memory scores over the earlier tokens of each
segment, their loss, gradients of features, representations and softmax. Each line runs in a process of its
own, so that its peak memory is its own.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, Dict

import common
import torch

SHAPES = [(24, 512, 512), (24, 128, 512), (1, 3072, 1024)]


def measure(
    impl: str, segments: int, length: int, width: int, types: int, repeats: int, device: str
) -> Dict[str, float]:
    """Median seconds of a step, and peak bytes: over the inputs, and of the whole process."""
    from fairseq.modules import AdaptiveSoftmax

    from trime_fairseq.memory import Visibility, adaptive_token_scores, memory_lse, trime_log_prob

    torch.manual_seed(0)
    tokens = segments * length
    softmax = AdaptiveSoftmax(types, width, [types // 5, types * 3 // 5], dropout=0.0).to(device)
    features, representation = (
        torch.randn(tokens, width, device=device, requires_grad=True) for _ in range(2)
    )
    # Frequencies like those of text: a target has about one positive in a hundred memories.
    target = (types * torch.rand(tokens) ** 4).long().to(device)
    visibility = Visibility.own_segment(segments, length)

    def step() -> None:
        for tensor in (features, representation, *softmax.parameters()):
            tensor.grad = None
        if impl == "none":
            token_lse, target_logit = adaptive_token_scores(softmax, features, target)
            (token_lse - target_logit).sum().backward()
            return
        token_lse, target_logit = adaptive_token_scores(softmax, features, target)
        lse = memory_lse(representation, representation, target, target, visibility, width**-0.5, impl=impl)
        (-trime_log_prob(token_lse, target_logit, *lse)).sum().backward()

    before = peak_bytes(device)
    seconds = []
    for _ in range(repeats + 1):
        common.synchronize()
        started = time.perf_counter()
        step()
        common.synchronize()
        seconds.append(time.perf_counter() - started)
    peak = peak_bytes(device)
    return {"seconds": statistics.median(seconds[1:]), "over": peak - before, "peak": peak}


def peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_child(*arguments: Any) -> Dict[str, float]:
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--types", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    common.quiet()
    if args.child:
        print(json.dumps(measure(*json.loads(args.child))))
        return
    device = "cpu" if args.cpu or not torch.cuda.is_available() else "cuda"
    rows = []
    for shape in SHAPES:
        naive = None
        for impl in ("naive", "chunked", "none"):
            found = in_child(impl, *shape, args.types, 1 if impl == "naive" else args.repeats, device)
            naive = naive or found
            names = {"naive": "naive N x M", "chunked": "trime_loss", "none": "cross-entropy alone"}
            rows.append(
                (
                    f"{shape[0]} x {shape[1]}, d {shape[2]}",
                    names[impl],
                    f"{found['seconds']:.3f}",
                    f"{naive['seconds'] / found['seconds']:.1f}",
                    f"{found['over'] / 1e9:.2f}",
                    f"{found['peak'] / 1e9:.2f}",
                )
            )
    header = ("tokens", "criterion", "seconds", "times naive", "GB over inputs", "GB in all")
    common.report(
        f"Criterion, forward and backward, float32, {args.types:,} types", header, rows, "criterion"
    )


if __name__ == "__main__":
    main()
