"""What is checked before there is a task: its flags, its dictionary, the command that asks for it."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fairseq import utils

from ..evaluation.config import EvaluationConfig, part_of
from ..flags import flag
from ..flags.bounds import Bounds, check_bounds

# Flags of memories and datastores, which only fairseq-eval-lm uses.
OF_EVALUATION = ("use_local", "use_external", "knnlm", "save_knnlm_dstore")


def is_command(*parts: str) -> bool:
    """True if the name of the running command holds one of ``parts``."""
    return any(part in os.path.basename(sys.argv[0]) for part in parts)


def flag_of_subset(subset: str, train_subset: str) -> str:
    """The flag of the running command that names a subset."""
    if is_command("eval", "generate", "interactive"):
        return "--gen-subset"
    return "--train-subset" if subset == train_subset else "--valid-subset"


def check_flags(kind: Any, args: Any) -> None:
    """Checks the flags of a task, before any file is read.

    Args:
        kind: the dataclass that declares them.
        args: their values.

    Raises:
        ValueError: naming the flag.
    """
    check_bounds(kind, args)
    window = args.context_window
    # fairseq has taken the window off, and counts in 32 bits.
    problem = Bounds(1, 2**31 - 1).problem(args.tokens_per_sample + window)
    if problem:
        raise ValueError(f"--tokens-per-sample {problem}")
    if args.tokens_per_sample <= 0:
        raise ValueError(
            f"--context-window {window} leaves no token of --tokens-per-sample "
            f"{args.tokens_per_sample + window} to evaluate: --tokens-per-sample counts both"
        )
    if is_command("eval") and not args.path:
        raise ValueError("--path FILE is needed: the checkpoint to evaluate")
    # Other commands take ensembles; fairseq-eval-lm would only say that the file does not exist.
    if is_command("eval") and args.path and len(utils.split_paths(args.path)) > 1:
        raise ValueError(f"--path {args.path}: one model expected, not an ensemble")
    part_of(args, EvaluationConfig).check()
    check_data(args.data, "dict.txt")


def check_data(data: str | None, *dictionaries: str) -> None:
    """Checks that the first folder of DATA holds these dictionaries.

    Raises:
        ValueError: naming the file.
    """
    folder = utils.split_paths(data or "")[0]
    for name in dictionaries:
        if not os.path.isfile(os.path.join(folder, name)):
            raise ValueError(
                f"DATA {folder} holds no {name}: make it with fairseq-preprocess --destdir {folder}"
            )


def read_dictionary(read: Callable[[], Any], path: str) -> Any:
    """Reads the dictionary ``path`` with ``read``, fairseq's own function.

    Raises:
        ValueError: naming the file, if it is not a dictionary.
    """
    try:
        return read()
    except OSError:
        raise
    except Exception as error:  # fairseq's own are of several kinds, and name no file
        raise ValueError(f"{path} is no dictionary of fairseq-preprocess, or damaged: {error}") from None


def refuse_memories(config: Any, why: str, names: Sequence[str] = OF_EVALUATION) -> None:
    """Raises ValueError if flags ask for the memories or the datastore of an evaluation.

    Args:
        config: of the flags.
        why: what the message says of them.
        names: of the fields that ask.
    """
    given = [flag(name) for name in names if getattr(config, name)]
    if given:
        raise ValueError(f"{' and '.join(given)}: {why}")
