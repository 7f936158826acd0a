"""The command line of ``trime-tune``: its grid, and what goes to ``fairseq-eval-lm``."""

import argparse
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairseq.dataclass.utils import gen_parser_from_dataclass

from .. import __version__
from ..evaluation.config import EvaluationConfig, MemoryConfig, part_of
from ..flags import flag
from .axes import AXES, Axes, Point

PROGRAM = "trime-tune"
USAGE = f"{PROGRAM} DATA --path CHECKPOINT [flags of fairseq-eval-lm] --grid-... [--output DIR]"

# Which values of an axis are valid, and what the help says.
_VALID: dict[str, tuple[Callable[[Any], bool], str]] = {
    "softmax_temp": (lambda value: 0 < value < math.inf, "positive numbers"),
    "mem_size": (lambda value: value >= 0, "numbers of tokens; 0 is the local memory alone"),
    "k": (lambda value: value >= 1, "positive numbers of neighbours"),
    "interp_temp": (lambda value: 0 < value < math.inf, "positive numbers"),
    "lmbda": (lambda value: 0 <= value <= 1, "numbers in [0, 1]"),
}
_WHOLE_NUMBERS = ("mem_size", "k")


@dataclass(frozen=True)
class Request:
    """What to tune, and how to call ``fairseq-eval-lm``.

    Attributes:
        axes: the grid.
        others: arguments of ``fairseq-eval-lm`` besides those that the fields below and points set.
        ordinary: the point whose result the evaluation itself reports: the largest memories, else the
            value of the ordinary flag, or the first of the axis where that is not on it.
        knnlm: whether the model is the plain kNN-LM, where ``lmbda`` needs no ``--use-interp``.
        subset, user_dir, eval_file, path: values of the flags.
        output: folder for the results.
        show: how many points to print.
    """

    axes: Axes
    others: tuple[str, ...]
    ordinary: Point
    knnlm: bool
    subset: str
    path: str
    user_dir: str | None = None
    eval_file: str | None = None
    output: str | None = None
    show: int = 10

    def arguments(self, point: Point, subset: str) -> list[str]:
        """Arguments of ``fairseq-eval-lm`` for one point, without ``--user-dir`` and ``--eval-file``."""
        words = [*self.others, "--gen-subset", subset, "--softmax-temp", str(point["softmax_temp"])]
        if point.get("mem_size"):
            words += ["--use-long", "--mem-size", str(point["mem_size"])]
        if "k" in point:
            words += ["--k", str(point["k"])]
        if "interp_temp" in point:
            words += ["--use-interp", "--interp-temp", str(point["interp_temp"])]
        if "lmbda" in point:
            words += ["--lmbda", str(point["lmbda"])]
        return words


def get_parser() -> argparse.ArgumentParser:
    """Parser of the command's own flags."""
    # Without abbreviations: what is meant for the evaluation must not be taken for a flag of this command.
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=USAGE,
        description="Tunes the memories of a model: the loss of all settings of a grid from one evaluation.",
        epilog="--gen-subset is valid by default. Values are separated by commas or spaces.",
        allow_abbrev=False,
    )
    for name in AXES:
        help = f"values of {flag(name)}: {_VALID[name][1]}"
        parser.add_argument(_grid_flag(name), nargs="+", metavar="VALUES", help=help)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--output", metavar="DIR", help="write tuning.json and tuning.png there")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="settings to print (%(default)s)")
    return parser


def _evaluation_parser() -> argparse.ArgumentParser:
    """Parser of those flags of ``fairseq-eval-lm`` that say which memories there are."""
    parser = argparse.ArgumentParser(prog=PROGRAM, usage=USAGE, add_help=False, allow_abbrev=False)
    gen_parser_from_dataclass(parser, EvaluationConfig())
    for name in ("num_shards", "distributed_world_size"):
        parser.add_argument(flag(name), type=int, default=1)
    for name in ("path", "user_dir"):
        parser.add_argument(flag(name))
    parser.add_argument("--gen-subset", default="valid")
    return parser


def _without_what_points_set(words: Sequence[str]) -> tuple[str, ...]:
    """Arguments of ``fairseq-eval-lm`` without those that :class:`Request` gives anew."""
    parser = argparse.ArgumentParser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    for name in ("use_long", "use_interp"):
        parser.add_argument(flag(name), action="store_true")
    for name in (*AXES, "gen_subset", "user_dir", "eval_file"):
        parser.add_argument(flag(name))
    return tuple(parser.parse_known_args(words)[1])


def read_request(arguments: Sequence[str]) -> Request:
    """The command line.

    Raises:
        ValueError: naming flag and fix, if the grid does not suit the memories in use.
        SystemExit: with argparse's message, for what is no value of a flag.
    """
    own, rest = get_parser().parse_known_args(arguments)
    given, _ = _evaluation_parser().parse_known_args(rest)
    grid = {
        name: _values(name, words) for name in AXES if (words := getattr(own, f"grid_{name}")) is not None
    }
    _check(grid, given)
    config = part_of(given, MemoryConfig).with_softmax_temp(None)
    use_interp = not config.knnlm and (config.use_interp or "lmbda" in grid or "interp_temp" in grid)
    use_long = bool(max(grid["mem_size"])) if "mem_size" in grid else config.use_long
    in_use = {
        "softmax_temp": True,
        "mem_size": config.use_long,
        "k": config.use_external or config.knnlm,
        "interp_temp": use_interp,
        "lmbda": use_interp or config.knnlm,
    }
    axes = Axes(*(grid.get(n) or ((getattr(config, n),) if in_use[n] else (None,)) for n in AXES))
    ordinary = {name: _ordinary(name, axes.values(name), getattr(config, name)) for name in axes.used}
    replace(config, **ordinary, use_long=use_long, use_interp=use_interp).check()
    return Request(
        axes,
        _without_what_points_set(rest),
        ordinary,
        knnlm=config.knnlm,
        subset=given.gen_subset,
        path=given.path,
        user_dir=given.user_dir,
        eval_file=given.eval_file,
        output=own.output,
        show=own.show,
    )


def _values(name: str, words: list[str]) -> tuple[Any, ...]:
    kind = int if name in _WHOLE_NUMBERS else float
    is_valid, meaning = _VALID[name]
    try:
        values = {kind(word) for word in re.split(r"[,\s]+", " ".join(words)) if word}
    except ValueError:
        values = set()
    if not values or not all(map(is_valid, values)):
        raise ValueError(f"{_grid_flag(name)} takes {meaning}, not {' '.join(words)!r}")
    return tuple(sorted(values))


def _ordinary(name: str, values: tuple[Any, ...], given: Any) -> Any:
    if name in _WHOLE_NUMBERS:
        return values[-1]
    return given if given in values else values[0]


def _check(grid: dict[str, tuple[Any, ...]], given: argparse.Namespace) -> None:
    """Raises ValueError for a grid that does not suit the memories in use."""
    if not given.path:
        raise ValueError("--path CHECKPOINT is missing, the model whose memories to tune")
    if not grid:
        raise ValueError(f"nothing to tune: pass {', '.join(map(_grid_flag, AXES))}, or some of them")
    for shards in ("num_shards", "distributed_world_size"):
        if getattr(given, shards) > 1:
            raise ValueError(f"{flag(shards)}: a grid is tuned by one process; leave it out")
    if given.save_knnlm_dstore:
        raise ValueError("--save-knnlm-dstore: not in tuning; write the datastore by fairseq-eval-lm first")
    if given.mode == "li" or given.cache_lmbda is not None:
        raise ValueError("--mode li and --cache-lmbda are not tuned: leave them out, or use fairseq-eval-lm")
    if given.mode == "lm":
        raise ValueError("--mode lm is the model without memory, there is nothing to tune: leave it out")
    for name in ("k", "interp_temp", "lmbda"):
        if name in grid and not (given.use_external or given.knnlm):
            raise ValueError(f"{_grid_flag(name)} is of the neighbours: pass --use-external as well")
    if given.knnlm and "interp_temp" in grid:
        raise ValueError("--grid-interp-temp: the temperature of --knnlm is --grid-softmax-temp, pass that")
    if given.knnlm and "mem_size" in grid:
        raise ValueError("--grid-mem-size: --knnlm has no long-term memory, leave one of them out")
    if "mem_size" in grid and not given.use_local:
        raise ValueError("--grid-mem-size adds to the local memory: pass --use-local as well")
    if not (given.use_local or given.use_external or given.knnlm):
        raise ValueError("--grid-softmax-temp is of memories: pass --use-local or --use-external as well")
    if "interp_temp" in grid and "lmbda" not in grid and given.lmbda is None:
        raise ValueError("--grid-interp-temp needs a weight of the neighbours: pass --lmbda or --grid-lmbda")


def _grid_flag(name: str) -> str:
    return "--grid-" + flag(name)[2:]
