"""How cost grows with the memory: long-term memory in evaluation, and search in a datastore.

    python benchmarks/growth.py [--sweep long] [--mem-sizes 1000 10000 100000 1000000] [--dtype float16]
    python benchmarks/growth.py [--sweep datastore] [--keys 10000 100000 1000000 10000000] [--lists N]

long: evaluation steps of --step-tokens new tokens with random keys, once the memory is full. "Held" are its
buffers, which have room for twice its size; "beyond" is what steps take for a while beside them, up to the
one that moves the newest keys to the buffers' front.

datastore: keys of a mixture of Gaussians, written, indexed and searched as a user would on a CPU, 512 queries
at once. Lists grow with the root of the keys, 4 sqrt(N) up to the published 4,096. "In search" is all that
index, tokens and searches add to the process at its peak, mapped files included.

Each size runs in processes of its own, on Linux. Slopes are those of straight lines through the last three
sizes in logarithms: 1 is linear growth. The figure (--plot) shows the sweeps that ran.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or PyTorch's threads spin against Faiss's

import common
import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

common.quiet()

from trime_fairseq.datastore import (  # noqa: E402
    DatastoreError,
    IndexConfig,
    Retriever,
    build_index,
    open_datastore,
    open_index,
)
from trime_fairseq.datastore.index.faiss_library import import_faiss  # noqa: E402
from trime_fairseq.datastore.layout import keys_path, values_path  # noqa: E402
from trime_fairseq.evaluation.memory_scores import EvaluatedBatch, PrecedingText  # noqa: E402

_CLUSTERS, _WRITTEN, _QUERIES, _FITTED = 5000, 250_000, 512, 3
# Name and colour in the figure.
_SWEEPS = {"long": ("long-term memory", "tab:blue"), "datastore": ("datastore", "tab:orange")}
Measured = dict[str, float]  # of a size, by the headings of the table


def long_term(size: int, args: argparse.Namespace) -> Measured:
    torch.manual_seed(1)
    device = "cpu" if args.cpu or not torch.cuda.is_available() else "cuda"
    text = PrecedingText([size])
    # Full, and once through the whole buffer: pages never written would count for the step that reaches them.
    once = range(0, 2 * (size + args.step_tokens), args.step_tokens)
    for _ in once:
        add(text, random_batch(0, device, args))
    seconds = []
    before = common.start_peak(device)
    for number in range(args.repeats + 1):
        batch = random_batch(number, device, args)
        common.synchronize()
        started = time.perf_counter()
        text.read_and_add(batch, [1.0])
        common.synchronize()
        seconds.append(time.perf_counter() - started)
    for _ in once:
        add(text, batch)
    beyond = common.peak_bytes(device) - before
    millis = 1e6 * statistics.median(seconds[1:]) / args.step_tokens
    return {"ms per 1,000 tokens": millis, "MB held": text.memory.nbytes / 1e6, "MB beyond": beyond / 1e6}


def add(text: PrecedingText, batch: EvaluatedBatch) -> None:
    text.memory.append(batch.queries, batch.targets)
    text.memory.forget()


def random_batch(number: int, device: str, args: argparse.Namespace) -> EvaluatedBatch:
    """A sample of new tokens, the ``number``-th of its text."""
    count = args.step_tokens
    keys = torch.randn(count, args.width, device=device).to(getattr(torch, args.dtype))
    tokens = torch.from_numpy(random_tokens(np.random.default_rng(number), count)).to(device)
    return EvaluatedBatch(tokens[None], [number], [(0, count)], keys, keys, tokens)


def random_tokens(random: np.random.Generator, count: int) -> np.ndarray:
    return (10_000 * random.random(count) ** 4).astype(np.int64)  # one pair in a hundred is equal, as in text


def build(size: int, prefix: str, args: argparse.Namespace) -> Measured:
    random = np.random.default_rng(1)
    with open(keys_path(prefix, "float16"), "wb") as keys, open(values_path(prefix), "wb") as values:
        for begin in range(0, size, _WRITTEN):
            count = min(_WRITTEN, size - begin)
            random_keys(random, count, args).tofile(keys)
            random_tokens(random, count).tofile(values)
    store = open_datastore(prefix, rows=size, dimension=args.key_width, fp16=True)
    started = time.perf_counter()
    path = build_index(store, index_config(size, args), prefix)
    seconds = time.perf_counter() - started
    return {"index MB": os.path.getsize(path) / 1e6, "s to build": seconds}


def search(prefix: str, args: argparse.Namespace) -> Measured:
    import_faiss()
    random = np.random.default_rng(2)
    seconds = []
    before = common.start_peak("cpu")
    index, store = open_index(f"{prefix}.ip"), open_datastore(prefix, dimension=args.key_width, fp16=True)
    retriever = Retriever(index, store, k=args.k, probe=args.probe)
    for _ in range(args.repeats + 1):
        queries = torch.from_numpy(random_keys(random, _QUERIES, args))
        started = time.perf_counter()
        retriever.search(queries)
        seconds.append(time.perf_counter() - started)
    micros = 1e6 * statistics.median(seconds[1:]) / _QUERIES
    megabytes = (common.peak_bytes("cpu") - before) / 1e6
    return {"lists": index.faiss.nlist, "us per query": micros, "MB in search": megabytes}


def random_keys(random: np.random.Generator, count: int, args: argparse.Namespace) -> np.ndarray:
    """Float16 keys. The Gaussians are always the same, and some have more keys than others."""
    centres = np.random.default_rng(0).standard_normal((_CLUSTERS, args.key_width), np.float32)
    centre = (_CLUSTERS * random.random(count) ** 2).astype(np.int64)
    noise = random.standard_normal((count, args.key_width), np.float32)
    return (centres[centre] + 0.7 * noise).astype(np.float16)


def index_config(size: int, args: argparse.Namespace) -> IndexConfig:
    lists = args.lists or min(4096, round(4 * size**0.5))
    shape = {"code_size": args.code_size, "training_keys": args.training_keys}
    config = IndexConfig.create("ip", args.key_width, ncentroids=lists, **shape)
    config.check_rows(size)
    return config


def in_child(function: Callable[..., Measured], *arguments: Any) -> Measured:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(name: str, size: int, args: argparse.Namespace) -> Measured:
    if name == "long":
        return in_child(long_term, size, args)
    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, "dstore")
        return {**in_child(build, size, prefix, args), **in_child(search, prefix, args)}


def report(name: str, title: str, found: dict[int, Measured], panels: Sequence[Any]) -> None:
    """Prints the table and that of the slopes, and draws time and memory."""
    columns, values = list(next(iter(found.values()))), np.array([list(m.values()) for m in found.values()])
    rows = [[f"{size:,}", *(f"{x:,.{int(x % 1 > 0)}f}" for x in row)] for size, row in zip(found, values)]
    common.report(title, ("keys", *columns), rows, f"growth-{name}")
    last = list(found)[-_FITTED:]
    slopes = {}
    for column, line in zip(columns, values[-_FITTED:].T):
        if len(last) > 1 and line.min() > 0:
            slopes[column] = f"{np.polyfit(np.log(last), np.log(line), 1)[0]:.2f}"
    if slopes:
        title = f"Slopes of {name} over {', '.join(f'{size:,}' for size in last)} keys"
        common.report(title, ("", "slope"), list(slopes.items()), f"growth-{name}-slopes")
    for panel, kind in zip(panels, ("s per ", "MB")):
        shown = [(column, line) for column, line in zip(columns, values.T) if kind in column]
        for (column, line), style in zip(shown, ("o-", "s--")):
            label = f"{_SWEEPS[name][0]}: {column}, slope {slopes.get(column, 'unknown')}"
            panel.plot(list(found), line, style, color=_SWEEPS[name][1], label=label)


def main() -> None:
    args = arguments()
    titles = {
        "long": f"Long-term memory, {args.step_tokens} tokens a step, d {args.width}, {args.dtype}",
        "datastore": f"Datastore, d {args.key_width}, PQ{args.code_size}, k {args.k}, probe {args.probe}",
    }
    figure = Figure(figsize=(12, 5), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, unit in zip(panels, ("microseconds per token or query", "MB")):
        panel.set(xscale="log", yscale="log", xlabel="tokens in the memory", ylabel=unit)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:,.10g}")
        panel.grid(alpha=0.3)
    for name in [args.sweep] if args.sweep else titles:
        sizes = sorted(args.mem_sizes if name == "long" else args.keys)
        report(name, titles[name], {size: measure(name, size, args) for size in tqdm(sizes, name)}, panels)
    for panel in panels:
        panel.legend(fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    Path(args.plot).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.plot, format="png", dpi=130)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sweep", choices=_SWEEPS, help="default: both")
    parser.add_argument("--mem-sizes", type=positive, nargs="+", default=[10**3, 10**4, 10**5, 10**6])
    parser.add_argument("--keys", type=positive, nargs="+", default=[10**4, 10**5, 10**6])
    numbers = {"step-tokens": 512, "width": 512, "key-width": 64, "code-size": 32, "training-keys": 10**6}
    for name, default in {**numbers, "k": 256, "probe": 32, "repeats": 7}.items():
        parser.add_argument(f"--{name}", type=positive, default=default, help=f"default: {default:,}")
    parser.add_argument("--lists", type=positive, help="default: 4 sqrt(N), at most 4,096")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--cpu", action="store_true", help="long-term memory on the CPU, too")
    parser.add_argument("--plot", default=str(common.ROOT / "docs" / "images" / "growth.png"))
    args = parser.parse_args()
    if args.dtype == "float16" and (args.cpu or not torch.cuda.is_available()):
        parser.error("--dtype float16 needs a GPU")
    if args.sweep != "long":
        for size in args.keys:
            index_config(size, args)  # what cannot be built is an error now, not after minutes
        if args.k > min(args.keys):
            parser.error(f"--k {args.k:,} exceeds --keys {min(args.keys):,}")
    return args


def positive(text: str) -> int:
    if int(text) > 0:
        return int(text)
    raise ValueError


if __name__ == "__main__":
    try:
        main()
    except DatastoreError as error:
        sys.exit(str(error))
    except BrokenExecutor:
        sys.exit("a process was killed, most likely for want of memory: leave the largest size out")
