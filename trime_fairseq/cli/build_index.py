"""Builds the Faiss index of a datastore. See docs/external-memory.md."""

import argparse
import sys
from functools import partial

from ..datastore import METRICS, Datastore, DatastoreError, IndexConfig, build_index, open_datastore
from .flags import add_flag, add_version, log_to_stdout, run

PROGRAM = "trime-build-index"

# Flags, as published, of the arguments that errors name.
FLAGS = {
    "chunk": "--num_keys_to_add_at_a_time",
    "code_size": "--code_size",
    "fp16": "--dstore_fp16",
    "key_dtype": "--dstore_fp16",
    "metric": "--dist",
    "name": "--faiss_index",
    # Without keys, the index can be built by this flag only.
    "need_keys": "--streaming",
    "prefix": "--dstore_mmap",
    "rows": "--dstore_size",
    "starting_point": "--starting_point",
    "training_keys": "--num_training_keys",
    "use_gpu": "--use_gpu",
}


def get_parser() -> argparse.ArgumentParser:
    # Without abbreviations: what is meant for the evaluation must not be taken for a flag of this command.
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    add_version(parser)
    store = parser.add_argument_group("datastore")
    add_flag(
        store, "--dstore_mmap", required=True, metavar="PREFIX", help="prefix of the datastore, or its folder"
    )
    add_flag(store, "--dstore_size", type=int, metavar="N", help="rows; a store with a manifest knows them")
    add_flag(store, "--dimension", type=int, metavar="D", help="of keys; a store with a manifest knows it")
    add_flag(store, "--dstore_fp16", action="store_true", help="keys are float16; a manifest tells")
    index = parser.add_argument_group("index")
    add_flag(index, "--faiss_index", required=True, metavar="NAME", help="the index becomes NAME.METRIC")
    add_flag(index, "--dist", choices=METRICS, help="default: what the manifest advises, l2 without one")
    add_flag(index, "--ncentroids", type=int, default=4096, help="lists (default: %(default)s)")
    add_flag(index, "--code_size", type=int, default=64, help="bytes of a key (default: %(default)s)")
    add_flag(index, "--factory", help="factory string of Faiss, instead of --ncentroids and --code_size")
    add_flag(index, "--probe", type=int, default=8, help="lists searched by default (default: %(default)s)")
    build = parser.add_argument_group("building")
    add_flag(build, "--seed", type=int, default=1, help="of the sample for training (default: %(default)s)")
    add_flag(build, "--num_training_keys", type=int, default=1_000_000, help="at most (default: %(default)s)")
    add_flag(build, "--do_train_only", action="store_true", help="stop when NAME.METRIC.trained is there")
    add_flag(build, "--num_keys_to_add_at_a_time", type=int, default=1_000_000, help="default: %(default)s")
    add_flag(build, "--starting_point", type=int, default=0, help="first row to add (default: %(default)s)")
    add_flag(build, "--use_gpu", action="store_true", help="train and encode on GPUs")
    add_flag(
        build,
        "--streaming",
        action="store_true",
        help="index the keys of a model without storing them; more flags as of fairseq-eval-lm, or, with "
        "--task trime_translation, of fairseq-generate",
    )
    return parser


def config_from_args(args: argparse.Namespace, dimension: int, advice: str = "l2") -> IndexConfig:
    """The index asked for, for keys of ``dimension``; ``advice`` is the metric without ``--dist``.

    Raises:
        DatastoreError: if there is no such index.
    """
    return IndexConfig.create(
        args.dist or advice,
        dimension,
        ncentroids=args.ncentroids,
        code_size=args.code_size,
        factory=args.factory,
        seed=args.seed,
        training_keys=args.num_training_keys,
    )


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, or 1 after an error of one line."""
    parser = get_parser()
    args, others = parser.parse_known_args(argv)
    if others and not args.streaming:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    log_to_stdout()

    def command() -> int:
        if args.streaming:
            from .streaming import stream

            stream(args, others, partial(config_from_args, args))
        else:
            _build(args)
        return 0

    return run(PROGRAM, command, **FLAGS)


def _build(args: argparse.Namespace) -> None:
    store = open_datastore(
        args.dstore_mmap,
        rows=args.dstore_size,
        dimension=args.dimension,
        fp16=args.dstore_fp16,
        need_keys=True,
    )
    build_index(
        store,
        config_from_args(args, _dimension(store), store.manifest.metric if store.manifest else "l2"),
        args.faiss_index,
        chunk=args.num_keys_to_add_at_a_time,
        starting_point=args.starting_point,
        probe=args.probe,
        use_gpu=args.use_gpu,
        train_only=args.do_train_only,
    )


def _dimension(store: Datastore) -> int:
    if store.dimension is None:
        raise DatastoreError(f"{store.prefix} does not tell the dimension of its keys: pass `dimension`")
    return store.dimension


if __name__ == "__main__":
    sys.exit(main())
