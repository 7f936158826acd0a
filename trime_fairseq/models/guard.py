"""What fairseq does before and after it reads a checkpoint, once this plug-in is registered.

All its commands read checkpoints through two functions of ``fairseq.checkpoint_utils``, and fairseq-train
tries with a third whether it can write some. They are replaced by these, which call them: a file is read as
data and checked first, and errors name the flag and the file. What fairseq makes of a sound checkpoint stays
as it is.
"""

import argparse
import functools
import logging
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from omegaconf import DictConfig, open_dict

from .published import readable
from .reading import read_checkpoint
from .settings import check_settings

logger = logging.getLogger(__name__)

_FLAGS = ("--path", "--restore-file", "--finetune-from-model", "--continue-once", "--lm-path")
_NOT_FOUND = "Model file not found: "
_FORCED = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


Passing = Callable[[str], Mapping[str, Any]]


class Task(Protocol):
    """A task that compares checkpoints with its data."""

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError for the state of a task that does not fit."""


# The task whose model is trained; it may be gone.
_task: weakref.ref[Task] | None = None


def compare_with(task: Task) -> None:
    """Has checkpoints that a training goes on from compared with this task. (fairseq gives a task its state
    back in evaluations only.)"""
    global _task
    _task = weakref.ref(task)


@contextmanager
def _compared_by_fairseq() -> Iterator[None]:
    global _task
    before, _task = _task, None
    try:
        yield
    finally:
        _task = _task or before


def guard_checkpoints(passing: Passing) -> None:
    """Has fairseq read checkpoints through :func:`read_checkpoint` from now on.

    Args:
        passing: by the name of a task, default values of flags that mean nothing in a checkpoint, since no
            training uses them.
    """
    for name, guarded in (
        ("load_checkpoint_to_cpu", functools.partial(_reader, passing)),
        ("load_model_ensemble_and_task", _builder),
        ("verify_checkpoint_directory", _opener),
    ):
        stock = getattr(checkpoint_utils, name)
        setattr(checkpoint_utils, name, guarded(getattr(stock, "__wrapped__", stock)))


def _reader(passing: Passing, stock: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(stock)
    def load_checkpoint_to_cpu(
        path: str, arg_overrides: dict[str, Any] | None = None, load_on_all_ranks: bool | None = None
    ) -> Any:
        if os.environ.get(_FORCED, "0") not in ("", "0"):
            logger.warning(f"TRIME: {_FORCED} does not count for checkpoints: they are read as data")
        named, given = f"{_flag(path)} {path}", arg_overrides or {}
        try:
            found = read_checkpoint(PathManager.get_local_path(path), given)
        except IsADirectoryError:
            raise ValueError(f"{named} is a folder: name the checkpoint in it") from None
        except OSError as error:
            raise ValueError(f"{named} cannot be read ({error.strerror or error})") from error
        except ValueError as error:
            raise ValueError(f"{named} {error}") from error
        # Only the trainer says how the other processes load; it goes on with the task that was set up last.
        task = None if _task is None or load_on_all_ranks is None else _task()
        if task is not None:
            try:
                task.check_state(found.get("task_state") or {})
            except ValueError as error:
                raise ValueError(f"{named}: {error}") from error
        overrides = arg_overrides
        if found.get("args") is not None:
            saved = vars(found["args"])
            flags = passing(str(saved.get("task")))
            unused = {name: value for name, value in flags.items() if name in saved}
            used = {**saved, **unused, **given}
            overrides = {**unused, **readable(argparse.Namespace(**used)), **given}
        del found
        try:
            state = stock(path, overrides, bool(load_on_all_ranks))
            # fairseq has composed these settings, in part from files of its own.
            check_settings(state["cfg"], given)
        except Exception as error:  # of Hydra, OmegaConf, or any at all
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ValueError(f"{named} has settings that fairseq cannot read ({problem})") from error
        _forget(state["cfg"], passing, given)
        return state

    return load_checkpoint_to_cpu


def _builder(stock: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(stock)
    def load_model_ensemble_and_task(filenames: Sequence[str], *args: Any, **options: Any) -> Any:
        try:
            with _compared_by_fairseq():
                return stock(filenames, *args, **options)
        except (OSError, ImportError) as error:
            if str(error).startswith(_NOT_FOUND):
                path = str(error).removeprefix(_NOT_FOUND)
                raise FileNotFoundError(f"{_flag(path)} {path} does not exist: check the path") from error
            raise
        except Exception as error:  # models raise about everything
            message = str(error)
            if isinstance(error, ValueError) and message.startswith("--"):
                raise
            named = " ".join([_flag(filenames[0]), *filenames])
            if isinstance(error, ValueError):
                raise ValueError(f"{named}: {message}") from error
            raise ValueError(f"{named}: {_why_not_built(error)}") from error

    return load_model_ensemble_and_task


def _opener(stock: Callable[[str], None]) -> Callable[[str], None]:
    @functools.wraps(stock)
    def verify_checkpoint_directory(save_dir: str) -> None:
        try:
            stock(save_dir)
        except OSError as error:
            raise ValueError(
                f"--save-dir {save_dir}: no checkpoint can be written there ({error}): choose another folder"
            ) from error

    return verify_checkpoint_directory


def _why_not_built(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "loading state_dict" in str(error) and len(lines) > 1:
        return f"its weights are not those of the model that its settings describe ({lines[1][:200]})"
    first = lines[0][:200] if lines else ""
    return f"the model of its settings cannot be built ({type(error).__name__}: {first})"


def _forget(config: Any, passing: Passing, given: Mapping[str, Any]) -> None:
    """Sets what the settings of the task say about passing flags that are not given."""
    task = config.get("task") if isinstance(config, DictConfig) else None
    if isinstance(task, DictConfig):
        values = passing(str(task.get("_name")))
        with open_dict(task):
            for name in (values.keys() & task.keys()) - given.keys():
                task[name] = values[name]


def _flag(path: str) -> str:
    """The flag of the command that names a checkpoint."""
    words = sys.argv
    for word, value in zip(words, [*words[1:], ""]):
        name, equals, same = word.partition("=")
        if name in _FLAGS and path in (same if equals else value).split(os.pathsep):
            return name
    return "--restore-file" if "train" in os.path.basename(words[0]) else "--path"
