"""Time and peak memory of the criterions, forward and backward: the published steps, chunks, Triton.

    python benchmarks/criterion.py [--memory local long ext] [--memories 3072 12288 65536] [--width 512 1024]
        [--impl naive chunked triton none] [--ranks 1 2] [--types 500] [--dtype float32] [--repeats 5] [--cpu]
    python benchmarks/criterion.py --profile [--memory long] [--impl chunked]

A line is a step of a criterion on random features, in processes of its own, so that its peak memory is its
own; see ``benchmarks/criterion_step.py``. Memories: local, the earlier tokens of each segment (trime_loss);
long, all earlier tokens (trime_long_loss); ext, all tokens but the later ones of one's own segment
(trime_ext_loss). Up to 12,288 memories every one is a query as well, and more are those of 3,072 queries. On
several ranks, a process each, queries are divided among them and the keys gathered.

"of matmul" is the share of the device's rate in a large matrix product that the memory reaches: the products
of what is visible (two of the similarities, one for each gradient) over the time beyond cross-entropy alone.
--types are few by default: they cost all the same, and many hide the memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace

import common
import torch
from criterion_step import IMPLEMENTATIONS, Work

CRITERIONS = {"local": "trime_loss", "long": "trime_long_loss", "ext": "trime_ext_loss"}
# Of a device in training: more memories come from other devices.
MOST_QUERIES, QUERIES_OF_LARGE = 12288, 3072
Found = dict[str, float]


def run(work: Work, ranks: int) -> Found:
    """The slowest and largest of ``ranks`` processes, which share the processors."""
    with tempfile.TemporaryDirectory() as folder:
        children = [start(work, [rank, ranks, f"{folder}/meeting_point"], ranks) for rank in range(ranks)]
        outputs = [child.communicate() for child in children]
    if any(child.returncode for child in children):
        sys.exit("\n".join(error[-2000:] for _, error in outputs))
    found: list[Found] = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    return {name: max(one[name] for one in found) for name in found[0]}


def start(work: Work, rank: list[object], ranks: int = 1) -> "subprocess.Popen[str]":
    threads = str(max(1, torch.get_num_threads() // ranks))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    environment["CRITERION_STEP"] = json.dumps([asdict(work), *rank])
    command = [sys.executable, str(common.ROOT / "benchmarks" / "criterion_step.py")]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def row_of(work: Work, ranks: int, found: Found, naive: Found | None, plain: Found | None) -> list[str]:
    names = {"naive": "published steps", "none": "cross-entropy alone"}
    share = ""
    if plain is not None and work.impl != "none":
        of_memory = found["seconds"] - plain["seconds"]
        share = f"{found['operations'] / of_memory / found['rate']:.0%}" if of_memory > 0 else "-"
    return [
        CRITERIONS[work.memory],
        f"{work.queries:,} x {work.memories:,}, d {work.width}",
        str(ranks),
        names.get(work.impl, work.impl),
        f"{1e3 * found['seconds']:,.1f}",
        f"{naive['seconds'] / found['seconds']:.1f}" if naive else "",
        f"{found['over'] / 1e9:.2f}",
        f"{found['peak'] / 1e9:.2f}",
        share,
    ]


HEADER = (
    "criterion",
    "queries x memories",
    "ranks",
    "implementation",
    "ms",
    "times published",
    "GB over inputs",
    "GB in all",
    "of matmul",
)


def rows_of(work: Work, ranks: int, impls: list[str]) -> list[list[str]]:
    """A line per implementation, cross-entropy alone the last."""
    found: dict[str, Found] = {}
    for impl in impls:
        repeats = 1 if impl == "naive" and work.device == "cpu" else work.repeats
        found[impl] = run(replace(work, impl=impl, repeats=repeats), ranks)
    naive, plain = found.get("naive"), found.get("none")
    return [row_of(replace(work, impl=impl), ranks, found[impl], naive, plain) for impl in impls]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--memory", nargs="+", choices=CRITERIONS, default=["local", "long"])
    parser.add_argument("--memories", nargs="+", type=int, default=[12288])
    parser.add_argument("--width", nargs="+", type=int, default=[512])
    parser.add_argument("--segment", type=int, default=512, help="tokens of a segment")
    parser.add_argument("--impl", nargs="+", choices=IMPLEMENTATIONS, help="default: all that run here")
    parser.add_argument("--ranks", nargs="+", type=int, default=[1])
    parser.add_argument("--types", type=int, default=500)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes")
    args = parser.parse_args()
    common.quiet()
    on_gpu = torch.cuda.is_available() and not args.cpu
    device, dtype = ("cuda", args.dtype or "bfloat16") if on_gpu else ("cpu", args.dtype or "float32")
    impls = args.impl or [impl for impl in IMPLEMENTATIONS if on_gpu or impl != "triton"]
    rows: list[list[str]] = []
    for memory in args.memory:
        for memories in args.memories:
            queries = memories if memories <= MOST_QUERIES or memory == "local" else QUERIES_OF_LARGE
            for width in args.width:
                work = Work(
                    *("none", memory, queries, memories, args.segment, width, args.types, args.repeats),
                    *(device, dtype),
                )
                if args.profile:
                    profile(replace(work, impl=impls[0] if args.impl else "chunked"))
                    continue
                for ranks in args.ranks:
                    rows += rows_of(work, ranks, impls)
    if rows:
        title = f"Criterion, forward and backward, {dtype}, {args.types:,} types"
        common.report(title, HEADER, rows, "criterion-" + "-".join(args.memory))


def profile(work: Work) -> None:
    child = start(work, [])
    output, error = child.communicate()
    if child.returncode:
        sys.exit(error[-2000:])
    sys.stdout.write(output)


if __name__ == "__main__":
    main()
