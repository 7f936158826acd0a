"""The stages of BM25 batching: seconds with one thread and with all cores, and how similar neighbours are.

    python benchmarks/bm25.py --data DATA_BIN --tokens-per-sample 512

Without --data it takes the word-level text of the tests.
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import common

from trime_fairseq.bm25 import (
    SearchResults,
    index_segments,
    open_searcher,
    read_segments,
    search_segments,
    write_batches,
)
from trime_fairseq.bm25.engines import ENGINES
from trime_fairseq.bm25.report import ORDERS, compare, read_list
from trime_fairseq.data.export import run_export


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default=str(common.REFERENCE / "data" / "word"))
    parser.add_argument("--tokens-per-sample", type=int, default=128)
    parser.add_argument("--engines", nargs="+", choices=sorted(ENGINES), default=sorted(ENGINES))
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--work", default=None, help="folder to keep; its export is used again")
    args = parser.parse_args()
    common.quiet()
    work = Path(args.work or tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    path = work / "segments" / "segments.json"
    rows: list[Any] = []
    if not path.exists():
        rows.append(
            (
                "export",
                "",
                1,
                f"{seconds(lambda: run_export(args.data, str(path), args.tokens_per_sample)):.1f}",
                "",
            )
        )
    segments = read_segments(str(path))
    cores = os.cpu_count() or 1
    similar: list[Any] = []
    for engine in args.engines:
        index, results, batches = (work / f"{engine}.{name}" for name in ("index", "results", "batches.json"))
        for threads in dict.fromkeys((1, cores)):
            shutil.rmtree(index, ignore_errors=True)
            took = seconds(lambda: index_segments(segments, str(index), engine, threads))  # noqa: B023
            rows.append(("index", engine, threads, f"{took:.1f}", f"{len(segments.texts) / took:,.0f}"))
        for threads in dict.fromkeys((1, cores)):
            shutil.rmtree(results, ignore_errors=True)
            # Java takes the number of threads when it starts.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                took = process.submit(search, str(path), str(index), str(results), args.k, threads).result()
            rows.append(("search", engine, threads, f"{took:.1f}", f"{len(segments.texts) / took:,.0f}"))
        found = SearchResults.open(str(results))
        took = seconds(lambda: write_batches(found, str(batches)))  # noqa: B023
        rows.append(("batches", engine, 1, f"{took:.1f}", f"{len(segments.texts) / took:,.0f}"))
        share = write_batches(found, str(batches)).neighbor_share
        similarities = compare(segments, read_list(str(batches), segments))
        for label, name in ORDERS.items():
            of, random = similarities[name], similarities["random"]
            steps = f"{share:.1%}" if name == "list" else ""
            cells = [f"{of.bm25.mean():.4g}", f"{of.bm25.mean() / random.bm25.mean():.2f}"]
            cells += [f"{of.overlap.mean():.4g}", f"{of.overlap.mean() / random.overlap.mean():.2f}"]
            similar.append((engine, label, steps, *cells))
    size = f"{len(segments.texts):,} segments of {segments.info.tokens_per_sample} tokens, k {args.k}"
    common.report(
        f"BM25 batching: {size}", ("stage", "engine", "threads", "seconds", "segments/s"), rows, "bm25"
    )
    header = ("engine", "order", "steps to a neighbour", "BM25", "times random", "overlap", "times random ")
    common.report(f"Similarity of consecutive segments: {size}", header, similar, "bm25-similarity")


def search(path: str, index: str, results: str, k: int, threads: int) -> float:
    """Seconds, the start of Java or of processes included."""
    segments = read_segments(path)

    def work() -> None:
        searcher = open_searcher(index, segments, threads)
        search_segments(segments, searcher, results, k=k, at_once=32 * threads)
        searcher.close()

    return seconds(work)


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
