"""Benchmarks at the shapes of the published recipes, without their data or checkpoints.

Flags of training are those that ``train_scripts/SHAPE-trime.sh --dry-run`` prints, flags of evaluation those
of ``run_pretrained/models.json``. The text is random. Speed depends on the text by two shares only: of tokens
in each band of an adaptive softmax, and of pairs of equal tokens, the positives of the memory. Of tokens
drawn by the law below among WikiText-103's types 92% are in the first band, and 1.1% of pairs are equal,
about as in English.
"""

import argparse
import json
import os
import shlex
import subprocess
from typing import Any

import common
import numpy as np
import torch

_RECIPES = common.ROOT / "train_scripts"
_SUFFIX = "-trime.sh"
NAMES = sorted(path.name[: -len(_SUFFIX)] for path in _RECIPES.glob(f"*{_SUFFIX}"))

# Of fairseq's dictionaries, special symbols and the padding to a multiple of 8 included.
_TYPES = {"wiki103": 267744, "enwik8": 208}
_LINE = 1000


def recipe(shape: str, devices: int = 1, max_tokens: int | None = None) -> list[str]:
    """The recipe's flags of fairseq-train, without criterion and accumulation.

    Args:
        shape: one of ``NAMES``.
        devices: that train.
        max_tokens: of a device's batch. By default the recipe's; but where that is a single segment, one
            device gets the batches of all of the recipe's: memories beyond a segment need a second one.
    """
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["PRECISION"] = ""  # fairseq has no half precision on the CPU
    command = ["bash", str(_RECIPES / f"{shape}{_SUFFIX}"), "--dry-run"]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    words = shlex.split(printed)[2:]  # the rest of fairseq-train DATA
    published = {flag: int(_take(words, flag)) for flag in ("--max-tokens", "--distributed-world-size")}
    for flag in ("--criterion", "--ce-warmup-epoch", "--update-freq"):
        _take(words, flag)
    if max_tokens is None:
        max_tokens = published["--max-tokens"]
        if devices == 1 and max_tokens < 2 * int(words[words.index("--tokens-per-sample") + 1]):
            max_tokens *= published["--distributed-world-size"]
    return [*words, "--max-tokens", str(max_tokens), "--distributed-world-size", str(devices)]


def _take(words: list[str], flag: str) -> str:
    """Removes a flag and its value, which is returned."""
    place = words.index(flag)
    words.pop(place)
    return words.pop(place)


def parse(flags: list[str]) -> Any:
    """fairseq-train's configuration, with all that the architecture sets."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    words = ["DATA", *flags]
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), words))


def evaluation_flags(shape: str) -> dict[str, int]:
    """``tokens_per_sample``, ``context_window`` and ``mem_size`` of the published evaluation."""
    table = json.loads((common.ROOT / "run_pretrained" / "models.json").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser()
    for flag in ("--tokens-per-sample", "--context-window", "--mem-size"):
        parser.add_argument(flag, type=int)
    return vars(parser.parse_known_args(table[f"{shape}-trime_long"]["flags"].split())[0])


def draw(shape: str, count: int, seed: int = 1) -> torch.Tensor:
    """Random tokens, int64 [count], by the law of Zipf and Mandelbrot; frequent ones come first, as in the
    dictionaries of fairseq."""
    types = _types(shape)
    special = 4
    weight = (np.arange(1, types - special + 1) + 2.7) ** -1.2
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.choice(len(weight), size=count, p=weight / weight.sum()) + special)


def write_data(shape: str, subset: str, tokens: int) -> str:
    """A folder of binarised data with ``tokens`` random tokens, or a few more, in ``subset``."""
    from fairseq.data import Dictionary, indexed_dataset

    folder = common.ROOT / "benchmarks" / "out" / f"data-{shape}"
    folder.mkdir(parents=True, exist_ok=True)
    dictionary = Dictionary()
    for number in range(_types(shape) - len(dictionary)):
        dictionary.add_symbol(f"w{number}")
    dictionary.save(str(folder / "dict.txt"))
    path = str(folder / subset)
    builder = indexed_dataset.make_builder(f"{path}.bin", impl="mmap", vocab_size=len(dictionary))
    for line in draw(shape, -(-tokens // _LINE) * _LINE).split(_LINE):
        builder.add_item(line)
    builder.finalize(f"{path}.idx")
    return str(folder)


def _types(shape: str) -> int:
    return _TYPES[shape.split("-")[0]]
