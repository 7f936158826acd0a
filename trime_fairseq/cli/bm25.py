"""BM25 batching: segments, their index, their neighbours, predefined batches of them. See README.md."""

import argparse
import logging
import os
import sys
from typing import List, Optional

from ..bm25 import Results, build_index, open_index, read_segments, search_segments, write_batches
from ..bm25.engines.lucene import Lucene
from ..bm25.index import ENGINES, engine_of
from ..bm25.report import compare, read_list, table, write_report
from ..data.export_command import export
from .flags import add_flag, log_to_stdout, run

PROGRAM = "trime-bm25"

logger = logging.getLogger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{export,index,search,batches,report}"
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def command(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, description=what, allow_abbrev=False)

    def segments_of(group: argparse.ArgumentParser) -> None:
        what = "segments, of fairseq-train --output-segments-to-file"
        add_flag(group, "--segments_path", required=True, metavar="FILE", help=what)

    export = command(
        "export", "Write the training segments as text: fairseq-train --output-segments-to-file."
    )
    export.add_argument("data", metavar="DATA_BIN", help="binarised training text")
    segments_of(export)
    add_flag(export, "--tokens_per_sample", type=int, required=True, metavar="N", help="as in the training")
    add_flag(export, "--sample_break_mode", default="none", help="as in the training (default: %(default)s)")

    index = command("index", "Index the segments.")
    segments_of(index)
    add_flag(index, "--index_path", required=True, metavar="DIR", help="index to write")
    what = "Lucene through Pyserini, which needs Java; or the package bm25s (default: %(default)s)"
    add_flag(index, "--engine", choices=sorted(ENGINES), default=Lucene.name, help=what)
    add_flag(index, "--threads", type=int, default=cores, help="default: all cores, %(default)s")

    search = command("search", "Search the neighbours of every segment. Started again, it continues.")
    segments_of(search)
    add_flag(search, "--index_path", required=True, metavar="DIR", help="their index")
    add_flag(search, "--results_path", required=True, metavar="DIR", help="folder of results to write")
    add_flag(search, "--k", type=int, default=50, help="neighbours of a segment (default: %(default)s)")
    add_flag(search, "--num_shards", type=int, default=1, help="commands that share the work")
    add_flag(search, "--shard_id", type=int, default=0, help="which of them this one is, from 0")
    add_flag(search, "--threads", type=int, default=cores, help="default: all cores, %(default)s")
    add_flag(search, "--piece", type=int, default=500, help="segments of a file (default: %(default)s)")

    batches = command("batches", "Chain segments to their neighbours: the list for --predefined-batches.")
    add_flag(batches, "--results_path", required=True, metavar="DIR", help="results of the search")
    add_flag(batches, "--batch_file", required=True, metavar="FILE", help="list to write")
    what = "do nothing, without an error, while pieces are missing that other shards write"
    add_flag(batches, "--if_complete", action="store_true", help=what)
    add_flag(batches, "--seed", type=int, default=1, help="of the first segment (default: %(default)s)")

    report = command("report", "Compare neighbours in the list with those of the text and of a random order.")
    segments_of(report)
    add_flag(report, "--batch_file", required=True, metavar="FILE", help="list of predefined batches")
    add_flag(report, "--output", required=True, metavar="DIR", help="folder for report.json, report.png")
    what = "words that occur less often count for the overlap (default: %(default)s)"
    add_flag(report, "--rare", type=int, default=200, metavar="N", help=what)
    add_flag(report, "--seed", type=int, default=1, help="of the random order (default: %(default)s)")
    return parser


def _export(args: argparse.Namespace) -> int:
    export(args.data, args.segments_path, args.tokens_per_sample, args.sample_break_mode)
    return 0


def _index(args: argparse.Namespace) -> int:
    if args.threads < 1:
        raise ValueError(f"--threads must be positive, not {args.threads}")
    build_index(read_segments(args.segments_path), args.index_path, args.engine, args.threads)
    return 0


def _search(args: argparse.Namespace) -> int:
    if args.threads < 1:
        raise ValueError(f"--threads must be positive, not {args.threads}")
    segments = read_segments(args.segments_path)
    searcher = open_index(args.index_path, segments, args.threads)
    try:
        results = search_segments(
            segments,
            searcher,
            engine_of(args.index_path),
            args.results_path,
            k=args.k,
            at_once=32 * args.threads,
            shard=args.shard_id,
            num_shards=args.num_shards,
            piece=args.piece,
        )
    finally:
        searcher.close()
    logger.info(f"{results.folder}: neighbours of shard {args.shard_id} of {args.num_shards} are complete")
    return 0


def _batches(args: argparse.Namespace) -> int:
    results = Results.open(args.results_path)
    if args.if_complete and results.missing():
        logger.info(f"{args.results_path}: other shards are still to come, no list yet")
        return 0
    info = write_batches(results, args.batch_file, args.seed)
    logger.info(
        f"{args.batch_file}: {info.segments:,} segments, {info.neighbor_share:.1%} of the steps to a "
        "retrieved neighbour"
    )
    return 0


def _report(args: argparse.Namespace) -> int:
    segments = read_segments(args.segments_path)
    order = read_list(args.batch_file, segments)
    similarities = compare(segments, order, args.rare, args.seed)
    facts = {"segments": len(order), "batch_file": args.batch_file, "rare": args.rare, "seed": args.seed}
    sys.stdout.write(table(similarities) + "\n")
    write_report(similarities, args.output, **facts)
    return 0


COMMANDS = {"export": _export, "index": _index, "search": _search, "batches": _batches, "report": _report}


def main(argv: Optional[List[str]] = None) -> int:
    """The exit status: 0, or 1 after an error of one line."""
    args = get_parser().parse_args(argv)
    log_to_stdout()
    return run(f"{PROGRAM} {args.command}", lambda: COMMANDS[args.command](args))


if __name__ == "__main__":
    sys.exit(main())
