"""The command line of ``trime-compare``: a YAML file, or flags that say the same."""

import argparse
import os
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import __version__
from ..files.yaml_file import read_yaml
from .request import DEFAULT_OUTPUT, Comparison, read_comparison

PROGRAM = "trime-compare"
USAGE = """trime-compare COMPARISON.yaml [--output DIR] [flags of fairseq-eval-lm]
       trime-compare DATA --model NAME=CHECKPOINT[,CHECKPOINT...] --memories MEMORY[,MEMORY...]
                     [--datastore YAML] [--model ...] [flags of fairseq-eval-lm]"""


class _OfModel(NamedTuple):
    """A flag that belongs to a model: the last ``--model`` before it."""

    name: str
    value: str


class _Append(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, value: Any, option: str | None = None) -> None:
        namespace.of_models = [*namespace.of_models, _OfModel(self.dest, str(value))]


def get_parser() -> argparse.ArgumentParser:
    # Without abbreviations: what is meant for the evaluation must not be taken for a flag of this command.
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=USAGE,
        description="Compares models and their memories: each row tuned on one text, evaluated on another.",
        epilog="Memories: see docs/comparing.md. Other flags are those of fairseq-eval-lm, for all models.",
        allow_abbrev=False,
    )
    parser.set_defaults(of_models=[])
    parser.add_argument(
        "source", metavar="COMPARISON.yaml|DATA", help="the comparison, or the binarised text"
    )
    for name, metavar, help in (
        ("model", "NAME=FILES", "a model and its checkpoints, one per seed"),
        ("memories", "LIST", 'of the model before it, such as "none, cache 2048, knn"'),
        ("datastore", "YAML", 'of the model before it: "{dstore_filename: PREFIX, indexfile: FILE, k: 64}"'),
    ):
        parser.add_argument(f"--{name}", action=_Append, metavar=metavar, help=help)
    parser.add_argument(
        "--baseline", metavar="MODEL[, MEMORY]", help="default: the first model, without memory"
    )
    parser.add_argument("--tune", metavar="SUBSET", help="where settings are tuned (default: valid)")
    parser.add_argument("--test", metavar="SUBSET", help="where rows are compared (default: test)")
    parser.add_argument("--output", metavar="DIR", help=f"folder of all results (default: {DEFAULT_OUTPUT})")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def read_arguments(arguments: Sequence[str]) -> Comparison:
    """The command line.

    Raises:
        ValueError: naming key or flag, and the fix.
        SystemExit: with argparse's message, for what is no value of a flag.
    """
    own, rest = get_parser().parse_known_args(arguments)
    is_file = own.source.endswith((".yaml", ".yml"))
    content = _file(own.source) if is_file else {"data": own.source, "models": _models(own.of_models)}
    if is_file and own.of_models:
        raise ValueError(f"--{own.of_models[0].name}: {own.source} names the models: leave one of them out")
    for name in ("baseline", "tune", "test", "output"):
        if getattr(own, name) is not None:
            content[name] = getattr(own, name)
    if rest:
        content["evaluation"] = _joined(content.get("evaluation", []), rest)
    return read_comparison(content)


def _file(path: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        raise ValueError(f"there is no file {path}")
    with open(path, encoding="utf-8") as file:
        content = read_yaml(file.read(), path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: needs the keys data and models")
    return content


def _joined(words: Any, more: list[str]) -> Any:
    """Flags of the file, then those of the command line, which overrule them."""
    if isinstance(words, str):
        return f"{words} {shlex.join(more)}"
    return [*words, *more] if isinstance(words, list) else words


def _models(flags: Sequence[_OfModel]) -> dict[str, Any]:
    models: dict[str, dict[str, Any]] = {}
    current: dict[str, Any] | None = None
    for name, value in flags:
        if name == "model":
            label, equals, files = value.partition("=")
            if not equals or not label.strip():
                raise ValueError(f"--model {value}: must be NAME=CHECKPOINT")
            if label.strip() in models:
                raise ValueError(
                    f"--model {label.strip()}: two models of this name: give each a name of its own"
                )
            current = models[label.strip()] = {"checkpoint": files.split(",")}
        elif current is None:
            raise ValueError(f"--{name} {value}: belongs to the --model before it")
        elif name in current:
            raise ValueError(f"--{name} {value}: the model before it has {name} already")
        else:
            current[name] = value.split(",") if name == "memories" else read_yaml(value, "--datastore")
    if not models:
        raise ValueError("--model NAME=CHECKPOINT is missing; or name a YAML file")
    return models
