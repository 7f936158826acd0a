"""The command line of ``trime-tune --task trime_translation``."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ... import __version__
from ...flags import flag
from ...flags.bounds import Bounds, bounds_of, check_bounds
from ...generation import TranslationMemoryConfig
from ..axis_values import grid_flag, read_values
from ..request import PROGRAM, given_flags
from .settings import PROPER_TYPES, Axes, Setting, powers_of_two

USAGE = (
    f"{PROGRAM} DATA --task trime_translation --path CHECKPOINT --use-knn-datastore --dstore-filename DIR "
    "[flags of fairseq-generate] [--output DIR]"
)
_WHOLE_RUN = ("num_shards", "distributed_world_size")
# Flags of other commands, or of a single run.
_OTHERS = ("path", "user_dir", "gen_subset", "scoring", "results_path", "model_overrides", *_WHOLE_RUN)
_OF_SETTINGS = ("k", "knn_lambda_type", "knn_lambda_value", "knn_temperature_value")
_NUMBERS = Bounds(1), Bounds(0)


@dataclass(frozen=True)
class TranslationRequest:
    """What to tune, and how to call ``fairseq-generate``.

    Attributes:
        family: flags of the memory; those of :class:`Setting` are not read.
        axes: what to try.
        others: arguments of ``fairseq-generate`` but those of the memory and of the fields below.
        subset, path, user_dir: values of the flags.
        decode: how many settings of each decoder form to decode; 0 for none.
        output: folder for the results.
        show: how many settings to print.
    """

    family: TranslationMemoryConfig
    axes: Axes
    others: tuple[str, ...]
    subset: str
    path: str
    user_dir: str | None = None
    decode: int = 6
    output: str | None = None
    show: int = 10


def get_parser() -> argparse.ArgumentParser:
    """Parser of the command's own flags."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} --task trime_translation",
        usage=USAGE,
        description="Tunes the memory of a translation model: decoder form, neighbours, temperature and "
        "weight, by the loss of the references in one pass, then by BLEU.",
        epilog="Without --knn-lambda-type all forms that are distributions are tried: "
        f"{', '.join(PROPER_TYPES)}. The weight of fix is solved for. A --knn-lambda-type, "
        "--knn-lambda-value or --knn-temperature-value that is given stays; --k is the most. --gen-subset "
        "is valid by default. Values are separated by commas or spaces.",
        allow_abbrev=False,
    )
    for name, what in (
        ("k", "powers of two up to --k"),
        ("knn_temperature_value", "0.5 to 2048"),
    ):
        help = f"values of {flag(name)} to try; by default {what}"
        parser.add_argument(grid_flag(name), nargs="+", metavar="VALUES", help=help)
    parser.add_argument("--task", choices=["trime_translation"], help="tunes a translation model")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    what = "settings of each form to decode; 0: go by the loss alone (%(default)s)"
    parser.add_argument("--decode", type=int, default=6, metavar="N", help=what)
    parser.add_argument("--output", metavar="DIR", help="write tuning.json there")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="settings to print (%(default)s)")
    return parser


def read_request(arguments: Sequence[str]) -> TranslationRequest:
    """The command line.

    Raises:
        ValueError: naming flag and fix, for what cannot be tuned.
        SystemExit: with argparse's message, for what is no value of a flag.
    """
    own, rest = get_parser().parse_known_args(arguments)
    given, others = given_flags(TranslationMemoryConfig, rest, _OTHERS)
    grid = _grid(own)
    _check(given, grid, others)
    for name, bounds, value in zip(("--show", "--decode"), _NUMBERS, (own.show, own.decode)):
        if problem := bounds.problem(value):
            raise ValueError(f"{name} {problem}")
    # Those that stand for flags of other groups are passed on as they are.
    names = {
        entry.name for entry in fields(TranslationMemoryConfig) if not str(entry.default).startswith("${")
    }
    family = replace(
        TranslationMemoryConfig(), **{name: value for name, value in given.items() if name in names}
    )
    check_bounds(TranslationMemoryConfig, family)
    axes = _axes(given, grid)
    for kind in axes.kinds:
        weight = (0.5 if axes.weight is None else axes.weight) if kind == "fix" else None
        Setting(kind, axes.ks[-1], axes.temperatures[-1], weight).config(family).check()
    words = [*others, "--path", given["path"], "--scoring", "sacrebleu"]
    if "model_overrides" in given:
        words += ["--model-overrides", given["model_overrides"]]
    return TranslationRequest(
        family,
        axes,
        tuple(words),
        subset=given.get("gen_subset", "valid"),
        path=given["path"],
        user_dir=given.get("user_dir"),
        decode=own.decode,
        output=own.output,
        show=own.show,
    )


def _grid(own: argparse.Namespace) -> dict[str, tuple[Any, ...]]:
    grid = {}
    for name, kind, meaning in (
        ("k", int, "positive numbers of neighbours"),
        ("knn_temperature_value", float, "positive numbers"),
    ):
        words = getattr(own, f"grid_{name}")
        if words is not None:
            bounds = bounds_of(TranslationMemoryConfig, name)
            grid[name] = read_values(name, words, kind, lambda value: 0 < value < math.inf, meaning, bounds)
    return grid


def _axes(given: dict[str, Any], grid: dict[str, tuple[Any, ...]]) -> Axes:
    kinds = (given["knn_lambda_type"],) if "knn_lambda_type" in given else PROPER_TYPES
    most = given.get("k", TranslationMemoryConfig().k)
    axes = Axes(kinds, grid.get("k") or powers_of_two(most), weight=given.get("knn_lambda_value"))
    temperatures = grid.get("knn_temperature_value")
    if "knn_temperature_value" in given:
        temperatures = (given["knn_temperature_value"],)
    return replace(axes, temperatures=temperatures) if temperatures else axes


def _check(given: dict[str, Any], grid: dict[str, tuple[Any, ...]], others: Sequence[str]) -> None:
    """Raises ValueError for flags that do not suit each other."""
    if not given.get("path"):
        raise ValueError("--path CHECKPOINT is missing, the model whose memory to tune")
    if ":" in given["path"]:
        raise ValueError(f"--path {given['path']}: one model is tuned, not an ensemble")
    if not given.get("use_knn_datastore"):
        raise ValueError("nothing to tune: pass --use-knn-datastore, its --dstore-filename and its index")
    for name in _WHOLE_RUN:
        if given.get(name, 1) > 1:
            raise ValueError(f"{flag(name)}: one process tunes; leave it out")
    if given.get("scoring", "sacrebleu") != "sacrebleu":
        raise ValueError(f"--scoring {given['scoring']}: BLEU is that of sacrebleu here; leave it out")
    if "results_path" in given:
        raise ValueError("--results-path is of one run: pass --output DIR, where tuning.json goes")
    for word in others:
        if word.split("=")[0] == "--score-reference":
            raise ValueError("--score-reference: references are scored anyway; leave it out")
        if word.split("=")[0] in ("--grid-knn-lambda-value", "--grid-knn-lambda-type"):
            raise ValueError(f"{word.split('=')[0]}: leave it out, the best is looked for")
    for name in grid:
        if name in given:
            raise ValueError(f"{flag(name)} and {grid_flag(name)}: leave one of them out")
    # Published commands have a 0 there.
    if given.get("knn_lambda_value") and given.get("knn_lambda_type") not in (None, "fix"):
        raise ValueError("--knn-lambda-value is the weight of --knn-lambda-type fix: leave it out")
