"""The command line of ``trime-tune``: its grid, and what goes to ``fairseq-eval-lm``."""

import argparse
import math
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..evaluation.config import MemorySettings
from .axes import AXES, Axes, Point, flag

PROGRAM = "trime-tune"

# Type of the values of an axis, which are valid, and what the help says.
_KINDS: Dict[str, Tuple[Callable[[str], Any], Callable[[Any], bool], str]] = {
    "softmax_temp": (float, lambda value: 0 < value < math.inf, "positive numbers"),
    "mem_size": (int, lambda value: value >= 0, "numbers of tokens; 0 is the local memory alone"),
    "k": (int, lambda value: value >= 1, "positive numbers of neighbours"),
    "interp_temp": (float, lambda value: 0 < value < math.inf, "positive numbers"),
    "lmbda": (float, lambda value: 0 <= value <= 1, "numbers in [0, 1]"),
}


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
    others: Tuple[str, ...]
    ordinary: Point
    knnlm: bool
    subset: str
    path: str
    user_dir: Optional[str] = None
    eval_file: Optional[str] = None
    output: Optional[str] = None
    show: int = 10

    def arguments(self, point: Point, subset: str) -> List[str]:
        """Of a ``fairseq-eval-lm`` for one point, without ``--user-dir`` and ``--eval-file``."""
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
    # Without abbreviations: what is meant for the evaluation must not be taken for a flag of this command.
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} DATA --path CHECKPOINT [flags of fairseq-eval-lm] --grid-... [--output DIR]",
        description="Tunes the memories of a model: the loss of all settings of a grid from one evaluation.",
        epilog="--gen-subset is valid by default. Values are separated by commas or spaces.",
        allow_abbrev=False,
    )
    for name in AXES:
        help = f"values of {flag(name)}: {_KINDS[name][2]}"
        parser.add_argument(_grid_flag(name), nargs="+", metavar="VALUES", help=help)
    parser.add_argument("--output", metavar="DIR", help="write tuning.json and tuning.png there")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="settings to print (%(default)s)")
    return parser


def _ordinary_parser() -> argparse.ArgumentParser:
    """Flags of ``fairseq-eval-lm`` that are set anew."""
    parser = argparse.ArgumentParser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    defaults = MemorySettings()
    for name in AXES:
        parser.add_argument(flag(name), type=_KINDS[name][0], default=getattr(defaults, name))
    for name in ("use_long", "use_interp"):
        parser.add_argument(flag(name), action="store_true")
    parser.add_argument("--gen-subset", default="valid")
    parser.add_argument("--user-dir")
    parser.add_argument("--eval-file")
    return parser


def _passed_parser() -> argparse.ArgumentParser:
    """Flags of ``fairseq-eval-lm`` that are only looked at."""
    parser = argparse.ArgumentParser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    for name in ("use_local", "use_external", "knnlm", "save_knnlm_dstore"):
        parser.add_argument(flag(name), action="store_true")
    for name in ("num_shards", "distributed_world_size"):
        parser.add_argument(flag(name), type=int, default=1)
    parser.add_argument("--mode", default="gn")
    parser.add_argument("--cache-lmbda")
    parser.add_argument("--path")
    return parser


def read_request(arguments: Sequence[str]) -> Request:
    """The command line.

    Raises:
        ValueError: naming flag and mend, if the grid does not suit the memories in use.
        SystemExit: with argparse's message, for what is no value of a flag.
    """
    own, rest = get_parser().parse_known_args(arguments)
    given, others = _ordinary_parser().parse_known_args(rest)
    passed, _ = _passed_parser().parse_known_args(others)
    grid = {
        name: _values(name, words) for name in AXES if (words := getattr(own, f"grid_{name}")) is not None
    }
    _check(grid, given, passed)
    interpolates = not passed.knnlm and (given.use_interp or "lmbda" in grid or "interp_temp" in grid)
    searches = passed.use_external or passed.knnlm
    in_use = {
        "softmax_temp": True,
        "mem_size": given.use_long,
        "k": searches,
        "interp_temp": interpolates,
        "lmbda": interpolates or passed.knnlm,
    }
    axes = Axes(*(grid.get(n) or ((getattr(given, n),) if in_use[n] else (None,)) for n in AXES))
    ordinary = {name: _ordinary(name, axes.values(name), getattr(given, name)) for name in axes.used}
    settings = {name: getattr(given, name) for name in AXES}
    MemorySettings(
        **{**settings, **ordinary},
        use_long=bool(max(grid["mem_size"])) if "mem_size" in grid else given.use_long,
        use_interp=given.use_interp or interpolates,
        **{name: getattr(passed, name) for name in ("use_local", "use_external", "knnlm", "mode")},
    ).check()
    return Request(
        axes,
        tuple(others),
        ordinary,
        knnlm=passed.knnlm,
        subset=given.gen_subset,
        path=passed.path,
        user_dir=given.user_dir,
        eval_file=given.eval_file,
        output=own.output,
        show=own.show,
    )


def _values(name: str, words: List[str]) -> Tuple[Any, ...]:
    kind, is_valid, meaning = _KINDS[name]
    try:
        values = {kind(word) for word in re.split(r"[,\s]+", " ".join(words)) if word}
    except ValueError:
        values = set()
    if not values or not all(map(is_valid, values)):
        raise ValueError(f"{_grid_flag(name)} takes {meaning}, not {' '.join(words)!r}")
    return tuple(sorted(values))


def _ordinary(name: str, values: Tuple[Any, ...], given: Any) -> Any:
    if name in ("mem_size", "k"):
        return values[-1]
    return given if given in values else values[0]


def _check(grid: Dict[str, Tuple[Any, ...]], given: argparse.Namespace, passed: argparse.Namespace) -> None:
    """Raises ValueError for a grid that does not suit the memories in use."""
    if not passed.path:
        raise ValueError("--path CHECKPOINT is missing, the model whose memories to tune")
    if not grid:
        raise ValueError(f"nothing to tune: pass {', '.join(map(_grid_flag, AXES))}, or some of them")
    for shards in ("num_shards", "distributed_world_size"):
        if getattr(passed, shards) > 1:
            raise ValueError(f"{flag(shards)}: a grid is tuned by one process; leave it out")
    if passed.save_knnlm_dstore:
        raise ValueError("--save-knnlm-dstore: not in tuning; write the datastore by fairseq-eval-lm first")
    if passed.mode == "li" or passed.cache_lmbda is not None:
        raise ValueError("--mode li and --cache-lmbda are not tuned: leave them out, or use fairseq-eval-lm")
    if passed.mode == "lm":
        raise ValueError("--mode lm is the model without memory, there is nothing to tune: leave it out")
    for name in ("k", "interp_temp", "lmbda"):
        if name in grid and not (passed.use_external or passed.knnlm):
            raise ValueError(f"{_grid_flag(name)} is of the neighbours: pass --use-external as well")
    if passed.knnlm and "interp_temp" in grid:
        raise ValueError("--grid-interp-temp: the temperature of --knnlm is --grid-softmax-temp, pass that")
    if passed.knnlm and "mem_size" in grid:
        raise ValueError("--grid-mem-size: --knnlm has no long-term memory, leave one of them out")
    if "mem_size" in grid and not passed.use_local:
        raise ValueError("--grid-mem-size adds to the local memory: pass --use-local as well")
    if not (passed.use_local or passed.use_external or passed.knnlm):
        raise ValueError("--grid-softmax-temp is of memories: pass --use-local or --use-external as well")
    if "interp_temp" in grid and "lmbda" not in grid and given.lmbda is None:
        raise ValueError("--grid-interp-temp needs a weight of the neighbours: pass --lmbda or --grid-lmbda")


def _grid_flag(name: str) -> str:
    return "--grid-" + name.replace("_", "-")
