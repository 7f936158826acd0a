"""Describes a datastore or an index, and verifies its files. See docs/external-memory.md."""

import argparse
import sys

from ..datastore.information import information
from ..datastore.verification import verify
from .flags import add_version, run

PROGRAM = "trime-datastore"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    words = "what a datastore or an index is"
    info = commands.add_parser("info", help=words, description=words, allow_abbrev=False)
    info.add_argument(
        "path", metavar="PREFIX", help="prefix or folder of a datastore, or the file of an index"
    )
    words = "read all files of a datastore: sizes, checksums, tokens, numbers; exit status 1 if one is wrong"
    check = commands.add_parser("verify", help=words, description=words, allow_abbrev=False)
    check.add_argument("path", metavar="PREFIX", help="prefix or folder of a datastore")
    check.add_argument("--indexfile", metavar="F", help="index of its keys: checksum, metric, ids, keys")
    check.add_argument(
        "--dictionary", metavar="DATA", help="binarised text or its dict.txt: whether it has the tokens"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0; 1 after an error of one line, or if ``verify`` found a problem."""
    args = get_parser().parse_args(argv)
    return run(PROGRAM, lambda: _info(args.path) if args.command == "info" else _verify(args))


def _info(path: str) -> int:
    for name, value in information(path):
        sys.stdout.write(f"{name + ':':<16} {value}\n")
    return 0


def _verify(args: argparse.Namespace) -> int:
    problems = 0
    for finding in verify(args.path, args.indexfile, args.dictionary):
        problems += finding.is_problem
        text = " ".join(finding.text.replace("`dictionary`", "--dictionary").splitlines())
        sys.stdout.write(f"{'problem' if finding.is_problem else 'not checked'}: {text}\n")
        sys.stdout.flush()
    if problems:
        sys.stdout.write(f"{args.path}: {problems} problem{'s' if problems > 1 else ''}\n")
        return 1
    sys.stdout.write(f"{args.path}: nothing wrong was found\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
