"""BM25 batching: segments, their index, their neighbours, predefined batches of them. See docs/bm25.md."""

import argparse
import errno
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..bm25 import (
    SearchResults,
    default_engine,
    index_segments,
    open_searcher,
    read_segments,
    search_segments,
    write_batches,
)
from ..bm25.engines import ENGINES
from ..bm25.engines.lucene import PACKAGE, Lucene
from ..bm25.limits import THREADS, check_folder
from ..bm25.report import compare, read_list, read_report, report_facts, table, write_report
from ..data.export import run_export, run_sentence_export
from ..files.machine import core_count
from ..flags.bounds import check_argument
from .flags import add_flag, add_version, log_to_stdout, run

PROGRAM = "trime-bm25"
# fairseq's.
BREAK_MODES = ("none", "complete", "complete_doc", "eos")

logger = logging.getLogger(__name__)


def _export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA_BIN", help="binarised training text")
    _add_segments(parser)
    cut = parser.add_mutually_exclusive_group(required=True)
    add_flag(cut, "--tokens_per_sample", type=int, metavar="N", help="as in the training")
    add_flag(cut, "--sentences", action="store_true", help="the target sentences of a translation")
    what = "as in the training (default: %(default)s)"
    add_flag(parser, "--sample_break_mode", default="none", choices=BREAK_MODES, help=what)


def _export(args: argparse.Namespace) -> None:
    if args.sentences:
        run_sentence_export(args.data, args.segments_path)
    else:
        run_export(args.data, args.segments_path, args.tokens_per_sample, args.sample_break_mode)


def _index_flags(parser: argparse.ArgumentParser) -> None:
    _add_segments(parser)
    add_flag(parser, "--index_path", required=True, metavar="DIR", help="index to write")
    what = (
        "Lucene through Pyserini, which needs Java; or the package bm25s (default: lucene where Pyserini is "
        f"installed, bm25s where it is not; here {default_engine()})"
    )
    add_flag(parser, "--engine", choices=sorted(ENGINES), help=what)
    _add_threads(parser)


def _index(args: argparse.Namespace) -> None:
    threads, engine = _threads(args), args.engine or _default_engine()
    index_segments(read_segments(args.segments_path), args.index_path, engine, threads)


def _default_engine() -> str:
    engine = default_engine()
    if engine == Lucene.name:
        logger.info("engine lucene, because Pyserini is installed; --engine bm25s needs no Java")
    else:
        logger.info(
            f"engine {engine}, because Pyserini is not installed; --engine lucene needs "
            f'pip install "{PACKAGE}"'
        )
    return engine


def _search_flags(parser: argparse.ArgumentParser) -> None:
    _add_segments(parser)
    add_flag(parser, "--index_path", required=True, metavar="DIR", help="their index")
    add_flag(parser, "--results_path", required=True, metavar="DIR", help="folder of results to write")
    add_flag(parser, "--k", type=int, default=50, help="neighbours of a segment (default: %(default)s)")
    add_flag(parser, "--num_shards", type=int, default=1, help="commands that share the work")
    add_flag(parser, "--shard_id", type=int, default=0, help="which of them this one is, from 0")
    _add_threads(parser)
    add_flag(parser, "--piece", type=int, default=500, help="segments of a file (default: %(default)s)")


def _search(args: argparse.Namespace) -> None:
    threads = _threads(args)
    segments = read_segments(args.segments_path)
    searcher = open_searcher(args.index_path, segments, threads)
    try:
        search_segments(
            segments,
            searcher,
            args.results_path,
            k=args.k,
            at_once=32 * threads,
            shard_id=args.shard_id,
            num_shards=args.num_shards,
            piece=args.piece,
        )
    finally:
        searcher.close()
    shard = f"shard {args.shard_id} of {args.num_shards}"
    logger.info(f"{args.results_path}: neighbours of {shard} are complete")


def _batches_flags(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "--results_path", required=True, metavar="DIR", help="results of the search")
    add_flag(parser, "--batch_file", required=True, metavar="FILE", help="list to write")
    what = "do nothing, without an error, while pieces are missing that other shards write"
    add_flag(parser, "--if_complete", action="store_true", help=what)
    add_flag(parser, "--seed", type=int, default=1, help="of the first segment (default: %(default)s)")


def _batches(args: argparse.Namespace) -> None:
    results = SearchResults.open(args.results_path)
    if args.if_complete and results.missing():
        logger.info(f"{args.results_path}: other shards are still to come, no list yet")
        return
    info = write_batches(results, args.batch_file, args.seed)
    logger.info(
        f"{args.batch_file}: {info.segments:,} segments, {info.neighbor_share:.1%} of the steps to a "
        "retrieved neighbour"
    )


def _report_flags(parser: argparse.ArgumentParser) -> None:
    _add_segments(parser)
    add_flag(parser, "--batch_file", required=True, metavar="FILE", help="list of predefined batches")
    add_flag(parser, "--output", required=True, metavar="DIR", help="folder for report.json, report.png")
    what = "words that occur less often count for the overlap (default: %(default)s)"
    add_flag(parser, "--rare", type=int, default=200, metavar="N", help=what)
    add_flag(parser, "--seed", type=int, default=1, help="of the random order (default: %(default)s)")


def _report(args: argparse.Namespace) -> None:
    check_folder("output", args.output, "report.json")
    segments = read_segments(args.segments_path)
    order = read_list(args.batch_file, segments)
    facts = report_facts(segments, order, args.rare, args.seed)
    summarised = read_report(args.output, **facts)
    if summarised:
        logger.info(f"{args.output}: the report is there already")
    else:
        similarities = compare(segments, order, args.rare, args.seed)
        summarised = write_report(similarities, args.output, batch_file=args.batch_file, **facts)
    sys.stdout.write(table(summarised) + "\n")


def _add_segments(parser: argparse.ArgumentParser) -> None:
    what = "segments, of trime-bm25 export or fairseq-train --output-segments-to-file"
    add_flag(parser, "--segments_path", required=True, metavar="FILE", help=what)


def _add_threads(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "--threads", type=int, default=core_count(), help="default: all cores, %(default)s")


def _threads(args: argparse.Namespace) -> int:
    threads = int(args.threads)
    check_argument("threads", threads, THREADS)
    return threads


class Command(NamedTuple):
    """What a command does, its flags, and the function that does it."""

    help: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


COMMANDS = {
    "export": Command(
        "Write the training segments as text: fairseq-train --output-segments-to-file.",
        _export_flags,
        _export,
    ),
    "index": Command("Index the segments.", _index_flags, _index),
    "search": Command(
        "Search the neighbours of every segment. Started again, it continues.", _search_flags, _search
    ),
    "batches": Command(
        "Chain segments to their neighbours: the list for --predefined-batches.", _batches_flags, _batches
    ),
    "report": Command(
        "Compare neighbours in the list with those of the text and of a random order.",
        _report_flags,
        _report,
    ),
}


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar=f"{{{','.join(COMMANDS)}}}")
    for name, command in COMMANDS.items():
        command.add_flags(
            commands.add_parser(name, help=command.help, description=command.help, allow_abbrev=False)
        )
    return parser


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 1 after an error of one line."""
    args = get_parser().parse_args(argv)
    log_to_stdout()

    def command() -> int:
        try:
            COMMANDS[args.command].run(args)
        except OSError as error:
            if error.errno not in _NO_ROOM or not error.filename:
                raise
            raise ValueError(
                f"{error.filename} cannot be written ({error.strerror}): make room there, or choose another "
                "place, and run the command again"
            ) from error
        return 0

    return run(f"{PROGRAM} {args.command}", command)


if __name__ == "__main__":
    sys.exit(main())
