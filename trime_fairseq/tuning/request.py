"""The command line of ``trime-tune``: the family to tune, its axes, and what goes to ``fairseq-eval-lm``."""

import argparse
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from fairseq.dataclass.utils import gen_parser_from_dataclass

from .. import __version__
from ..evaluation.axes import MemoryAxes
from ..evaluation.config import EvaluationConfig, MemoryConfig
from ..flags import flag
from ..flags.bounds import Bounds, bounds_of
from .axis_values import grid_flag, read_values
from .families import allowed_values, check_families, default_axes

logger = logging.getLogger(__name__)

PROGRAM = "trime-tune"
USAGE = f"{PROGRAM} DATA --path CHECKPOINT [flags of fairseq-eval-lm, of memories] [--output DIR]"

# Which values of an axis are valid, what the help says, and the default.
_VALID: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "softmax_temp": (lambda value: 0 < value < math.inf, "positive numbers", "0.25 to 32"),
    "mem_size": (
        lambda value: value >= 0,
        "numbers of tokens; 0 is no long-term memory",
        "0 and powers of two up to --mem-size",
    ),
    "k": (lambda value: value >= 1, "positive numbers of neighbours", "powers of two up to --k"),
    "interp_temp": (lambda value: 0 < value < math.inf, "positive numbers", "0.5 to 2048"),
}
_WHOLE_NUMBERS = ("mem_size", "k")
_SHARDS = ("num_shards", "distributed_world_size")
_MOST_COMBINATIONS = 2_000_000
_SHOWN = Bounds(1)


@dataclass(frozen=True)
class Request:
    """What to tune, and how to call ``fairseq-eval-lm``.

    Attributes:
        family: memories and mode; see :mod:`trime_fairseq.tuning.families`.
        axes: the values to try.
        others: arguments of ``fairseq-eval-lm`` but those of memories and those that the fields below give.
        subset, path, user_dir: values of the flags.
        output: folder for the results.
        show: how many settings to print.
    """

    family: MemoryConfig
    axes: MemoryAxes
    others: tuple[str, ...]
    subset: str
    path: str
    user_dir: str | None = None
    output: str | None = None
    show: int = 10


def get_parser() -> argparse.ArgumentParser:
    """Parser of the command's own flags."""
    # Without abbreviations: what is meant for the evaluation must not be taken for a flag of this command.
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=USAGE,
        description="Tunes the memories of a model: the best temperatures, sizes and weights, from one "
        "evaluation.",
        epilog="Weights are solved for. A --lmbda, --cache-lmbda, --softmax-temp or --interp-temp that is "
        "given stays. --gen-subset is valid by default. Values are separated by commas or spaces. "
        f"Translation: {PROGRAM} --task trime_translation --help.",
        allow_abbrev=False,
    )
    for name, (_, meaning, default) in _VALID.items():
        help = f"values of {flag(name)} to try, {meaning}; by default {default}"
        parser.add_argument(grid_flag(name), nargs="+", metavar="VALUES", help=help)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--output", metavar="DIR", help="write tuning.json and tuning.png there")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="settings to print (%(default)s)")
    return parser


def read_request(arguments: Sequence[str]) -> Request:
    """The command line.

    Raises:
        ValueError: naming flag and fix, for values that do not suit the memories in use.
        SystemExit: with argparse's message, for what is no value of a flag.
    """
    own, rest = get_parser().parse_known_args(arguments)
    given = given_flags(EvaluationConfig, rest, ("path", "user_dir", "gen_subset", *_SHARDS))[0]
    grid = {
        name: _values(name, words) for name in _VALID if (words := getattr(own, f"grid_{name}")) is not None
    }
    if any(word.partition("=")[0] == "--grid-lmbda" for word in rest):
        raise ValueError("--grid-lmbda: leave it out, the best weight is solved for (--lmbda fixes it)")
    _check(grid, given)
    known = {entry.name for entry in fields(MemoryConfig)}
    family = replace(MemoryConfig(), **{name: value for name, value in given.items() if name in known})
    if "mem_size" in grid:
        largest = int(max(grid["mem_size"]))
        family = replace(family, use_long=largest > 0, mem_size=largest)
    if "k" in grid:
        family = replace(family, k=int(max(grid["k"])))
    if "interp_temp" in grid and not family.knnlm:
        family = replace(family, use_interp=True)
    check_families([family])
    problem = _SHOWN.problem(own.show)
    if problem:
        raise ValueError(f"--show {problem}")
    axes = _axes(family, grid, given)
    check_size(family, axes)
    *_, others = given_flags(MemoryConfig, rest, ("user_dir", "gen_subset"))
    return Request(
        family,
        axes,
        tuple(others),
        subset=given.get("gen_subset", "valid"),
        path=given["path"],
        user_dir=given.get("user_dir"),
        output=own.output,
        show=own.show,
    )


def given_flags(
    kind: type[Any], words: Sequence[str], others: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """The values of the flags of a dataclass, and of others, that ``words`` give; and the rest of these.

    Raises:
        SystemExit: with argparse's message, for what is no value of a flag.
    """
    parser = argparse.ArgumentParser(prog=PROGRAM, usage=USAGE, add_help=False, allow_abbrev=False)
    gen_parser_from_dataclass(parser, kind())
    declared = {action.dest for action in parser._actions}
    for name in others:
        if name not in declared:
            parser.add_argument(flag(name), type=int if name in _SHARDS else str)
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    found, rest = parser.parse_known_args(words)
    return vars(found), rest


def _values(name: str, words: list[str]) -> tuple[Any, ...]:
    kind = int if name in _WHOLE_NUMBERS else float
    is_valid, meaning, _ = _VALID[name]
    return read_values(name, words, kind, is_valid, meaning, bounds_of(MemoryConfig, name))


def check_size(family: MemoryConfig, axes: MemoryAxes) -> None:
    """Says how many settings there are to try.

    Raises:
        ValueError: if they are too many.
    """
    values = allowed_values(family, axes)
    combinations = math.prod(map(len, values.values()))
    sizes = " x ".join(f"{len(found)} of {flag(name)}" for name, found in values.items())
    if combinations > _MOST_COMBINATIONS:
        raise ValueError(
            f"{combinations:,} settings ({sizes}) are too many, at most {_MOST_COMBINATIONS:,} can be tried: "
            f"pass fewer values to {' or '.join(map(grid_flag, values))}"
        )
    logger.info(f"TRIME: {combinations:,} settings to choose from: {sizes}")


def _axes(family: MemoryConfig, grid: dict[str, tuple[Any, ...]], given: dict[str, Any]) -> MemoryAxes:
    """The default axes; where values or a single temperature were given, those."""
    chosen = {name: (given[name],) for name in ("softmax_temp", "interp_temp") if name in given} | grid
    alone = "softmax_temp" if family.softmax_temp_is_neighbors else "interp_temp"
    names = {"temperatures": "softmax_temp", "mem_sizes": "mem_size", "ks": "k", "interp_temps": alone}
    axes = default_axes([family])
    used = [(axis, names[axis]) for axis, values in axes._asdict().items() if values]
    return axes._replace(**{axis: chosen[name] for axis, name in used if name in chosen})


def _check(grid: dict[str, tuple[Any, ...]], given: dict[str, Any]) -> None:
    """Raises ValueError for flags that do not suit each other."""
    if not given.get("path"):
        raise ValueError("--path CHECKPOINT is missing, the model whose memories to tune")
    for shards in _SHARDS:
        if given.get(shards, 1) > 1:
            raise ValueError(f"{flag(shards)}: one process tunes; leave it out")
    if given.get("save_knnlm_dstore"):
        raise ValueError("--save-knnlm-dstore: not in tuning; write the datastore by fairseq-eval-lm first")
    if given.get("eval_file"):
        raise ValueError("--eval-file is of one evaluation: pass --output DIR, where tuning.json goes")
    if given.get("mode") == "lm":
        raise ValueError("--mode lm is the model without memory, there is nothing to tune: leave it out")
    neighbors = given.get("use_external") or given.get("knnlm")
    for name in ("k", "interp_temp"):
        if name in grid and not neighbors:
            raise ValueError(
                f"{grid_flag(name)} is of the neighbours: pass --use-external or --knnlm as well"
            )
    if given.get("knnlm") and given.get("mode") != "li" and "interp_temp" in grid:
        raise ValueError("--grid-interp-temp: the temperature of --knnlm is --grid-softmax-temp, pass that")
    if "mem_size" in grid and not given.get("use_local"):
        raise ValueError("--grid-mem-size adds to the local memory: pass --use-local as well")
    if not (given.get("use_local") or neighbors):
        raise ValueError("nothing to tune: pass a memory, --use-local, --use-external or --knnlm")
    for name in ("softmax_temp", "interp_temp"):
        if name in grid and name in given:
            raise ValueError(f"{flag(name)} and {grid_flag(name)}: leave one of them out")
