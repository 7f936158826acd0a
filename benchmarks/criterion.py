"""Time and peak memory of the criterions, forward and backward: naive N x M matrices against chunks.

    python benchmarks/criterion.py [--memory local long ext] [--ranks 1 2] [--types 500] [--repeats 5] [--cpu]

The criterion's own steps on random features: token scores of an adaptive softmax over --types words (few by
default: they cost all the same, and many hide the memory), memory scores, their loss, gradients of features,
representations and softmax. Memories: local, the earlier tokens of each segment (trime_loss); long, all
earlier tokens (trime_long_loss); ext, all tokens but the later ones of one's own segment (trime_ext_loss). On
several ranks, a process each, the segments are divided among them and the keys gathered. Each line runs in
processes of its own, so that its peak memory is its own.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List

import common
import torch

SHAPES = {"local": [(24, 512, 512), (24, 128, 512), (1, 3072, 1024)]}
NAMES = {"local": "trime_loss", "long": "trime_long_loss", "ext": "trime_ext_loss"}


def measure(
    impl: str,
    memory: str,
    segments: int,
    length: int,
    width: int,
    types: int,
    repeats: int,
    device: str,
    rank: int,
    ranks: int,
    meeting_point: str,
) -> Dict[str, float]:
    """Median seconds of a step, and peak bytes: over the inputs, and of the whole process."""
    from fairseq.modules import AdaptiveSoftmax

    from trime_fairseq.memory import (
        Visibility,
        adaptive_token_scores,
        gather_memory,
        memory_lse,
        trime_log_prob,
    )

    if ranks > 1:
        backend = "nccl" if device == "cuda" and torch.cuda.device_count() >= ranks else "gloo"
        torch.distributed.init_process_group(backend, f"file://{meeting_point}", rank=rank, world_size=ranks)
        if backend == "nccl":
            torch.cuda.set_device(rank)
        segments //= ranks
    torch.manual_seed(rank)
    tokens = segments * length
    softmax = AdaptiveSoftmax(types, width, [types // 5, types * 3 // 5], dropout=0.0).to(device)
    features, representation = (
        torch.randn(tokens, width, device=device, requires_grad=True) for _ in range(2)
    )
    # Frequencies like those of text: a target has about one positive in a hundred memories.
    target = (types * torch.rand(tokens) ** 4).long().to(device)
    lengths, counts, before = (length,) * segments, (tokens,) * ranks, rank * tokens
    visibility = {
        "local": lambda: Visibility.own_segment(segments, length),
        "long": lambda: Visibility.consecutive(length, lengths, before),
        "ext": lambda: Visibility.all_segments(length, lengths, before, tokens * ranks, False),
    }[memory]()

    def step() -> None:
        for tensor in (features, representation, *softmax.parameters()):
            tensor.grad = None
        token_lse, target_logit = adaptive_token_scores(softmax, features, target)
        if impl == "none":
            (token_lse - target_logit).sum().backward()
            return
        keys, key_tokens, key_grad = gather_memory(representation, target, counts, rank)
        lse = memory_lse(
            representation,
            keys,
            target,
            key_tokens,
            visibility,
            width**-0.5,
            key_grad=key_grad,
            impl=impl,
        )
        (-trime_log_prob(token_lse, target_logit, *lse)).sum().backward()

    before_steps = peak_bytes(device)
    seconds = []
    for _ in range(repeats + 1):
        common.synchronize()
        started = time.perf_counter()
        step()
        common.synchronize()
        seconds.append(time.perf_counter() - started)
    peak = peak_bytes(device)
    return {"seconds": statistics.median(seconds[1:]), "over": peak - before_steps, "peak": peak}


def peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_children(ranks: int, *arguments: Any) -> Dict[str, float]:
    """The slowest and largest of ``ranks`` processes, which share the processors."""
    threads = str(max(1, torch.get_num_threads() // ranks))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(ranks):
            work = json.dumps([*arguments, rank, ranks, f"{folder}/meeting_point"])
            command = [sys.executable, __file__, "--child", work]
            children.append(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
                )
            )
        outputs = [child.communicate() for child in children]
    if any(child.returncode for child in children):
        sys.exit("\n".join(error[-2000:] for _, error in outputs))
    found: List[Dict[str, float]] = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    return {name: max(one[name] for one in found) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--memory", nargs="+", choices=NAMES, default=["local"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1])
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
    for memory in args.memory:
        for shape in SHAPES.get(memory, SHAPES["local"][:1]):
            for ranks in args.ranks:
                naive = None
                for impl in ("naive", "chunked", "none"):
                    repeats = 1 if impl == "naive" else args.repeats
                    found = in_children(ranks, impl, memory, *shape, args.types, repeats, device)
                    naive = naive or found
                    names = {
                        "naive": f"naive {NAMES[memory]}",
                        "chunked": NAMES[memory],
                        "none": "cross-entropy alone",
                    }
                    rows.append(
                        (
                            f"{shape[0]} x {shape[1]}, d {shape[2]}",
                            ranks,
                            names[impl],
                            f"{found['seconds']:.3f}",
                            f"{1 / found['seconds']:.2f}",
                            f"{naive['seconds'] / found['seconds']:.1f}",
                            f"{found['over'] / 1e9:.2f}",
                            f"{found['peak'] / 1e9:.2f}",
                        )
                    )
    header = (
        "tokens",
        "ranks",
        "criterion",
        "seconds",
        "steps/s",
        "times naive",
        "GB over inputs",
        "GB in all",
    )
    title = f"Criterion, forward and backward, float32, {args.types:,} types"
    common.report(title, header, rows, "criterion-" + "-".join(args.memory))


if __name__ == "__main__":
    main()
