"""What is to be compared: models, their memories, the text. YAML and flags become a :class:`Comparison`."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.provenance import data_folders
from .evaluation_flags import check_evaluation_flags, search_flags
from .memories import Memory, read_memory

Content = Mapping[str, Any]

KEYS = ("data", "evaluation", "tune", "test", "baseline", "models", "output")
MODEL_KEYS = ("checkpoint", "memories", "datastore", "evaluation")
DEFAULT_OUTPUT = "comparison"


@dataclass(frozen=True)
class Search:
    """The datastore of one checkpoint: flags of ``fairseq-eval-lm``, and the most neighbours."""

    flags: tuple[str, ...]
    k: int


@dataclass(frozen=True)
class Model:
    """A model of the table.

    Attributes:
        name: as the table shows it.
        checkpoints: files; several are seeds of one model.
        memories: a row each.
        searches: of each checkpoint, where a memory needs a datastore; else empty.
        evaluation: flags of ``fairseq-eval-lm``, those of all models included.
    """

    name: str
    checkpoints: tuple[str, ...]
    memories: tuple[Memory, ...]
    searches: tuple[Search, ...]
    evaluation: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A whole comparison, checked.

    Attributes:
        data: folder of the binarised text.
        tune, test: subsets on which settings are tuned, and rows compared.
        baseline: model and memory with which rows are compared.
        output: folder of all results.
    """

    data: str
    models: tuple[Model, ...]
    baseline: tuple[str, Memory]
    tune: str = "valid"
    test: str = "test"
    output: str = DEFAULT_OUTPUT


def read_comparison(content: Content) -> Comparison:
    """Checks a comparison.

    Args:
        content: of the YAML file, or the same made from flags.

    Raises:
        ValueError: naming the key and the fix.
    """
    _check_keys(content, KEYS, "")
    data, tune, test = (
        _text(content, key, otherwise)
        for key, otherwise in (("data", None), ("tune", "valid"), ("test", "test"))
    )
    output = _text(content, "output", DEFAULT_OUTPUT)
    _check_data(data, tune, test)
    shared = _words(content.get("evaluation", ""), "evaluation")
    check_evaluation_flags(shared, "evaluation")
    models = content.get("models")
    if not isinstance(models, Mapping) or not models:
        raise ValueError("models: missing: name each model, with its checkpoint and its memories")
    read = tuple(_model(name, settings, shared) for name, settings in models.items())
    _check_unique([model.name for model in read], "models")
    return Comparison(data, read, _baseline(content.get("baseline"), read), tune, test, output)


def _model(name: Any, content: Any, shared: tuple[str, ...]) -> Model:
    where = f"models: {name}"
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{where}: the name of a model is a text: put it in quotes")
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: needs the keys checkpoint and memories")
    _check_keys(content, MODEL_KEYS, f"{where}: ")
    checkpoints = _texts(
        content.get("checkpoint"), f"{where}: checkpoint", "a file, or a list of one per seed"
    )
    for checkpoint in checkpoints:
        if not os.path.isfile(checkpoint):
            raise ValueError(f"{where}: checkpoint: there is no file {checkpoint}")
    _check_unique(checkpoints, f"{where}: checkpoint")
    memories = []
    for text in _texts(content.get("memories"), f"{where}: memories", "a list, such as [none, cache 2048]"):
        try:
            memories.append(read_memory(text))
        except ValueError as error:
            raise ValueError(f"{where}: memories: {error}") from None
    _check_unique([str(memory) for memory in memories], f"{where}: memories")
    own = _words(content.get("evaluation", ""), f"{where}: evaluation")
    check_evaluation_flags(own, f"{where}: evaluation")
    searches = _searches(content.get("datastore"), len(checkpoints), where)
    needing = [memory for memory in memories if memory.searches]
    if needing and not searches:
        raise ValueError(
            f"{where}: memory {str(needing[0])!r} searches a datastore: add datastore: "
            "{dstore_filename: PREFIX, indexfile: FILE}"
        )
    if searches and not needing:
        raise ValueError(f"{where}: datastore: none of its memories searches one: leave it out")
    return Model(name.strip(), checkpoints, tuple(memories), searches, (*shared, *own))


def _searches(content: Any, checkpoints: int, where: str) -> tuple[Search, ...]:
    where = f"{where}: datastore"
    if content is None:
        return ()
    stores = content if isinstance(content, list) else [content]
    if len(stores) != checkpoints:
        needed = "a list of as many" if checkpoints > 1 else "one"
        raise ValueError(f"{where}: {checkpoints} checkpoint(s) need {needed}, not {len(stores)}")
    return tuple(Search(*search_flags(store, where)) for store in stores)


def _baseline(content: Any, models: Sequence[Model]) -> tuple[str, Memory]:
    """A model without memory, or "MODEL, MEMORY"; the first model by default."""
    rows = {(model.name, memory) for model in models for memory in model.memories}
    names = {f"{name}, {memory}": (name, memory) for name, memory in rows}
    names |= {name: (name, memory) for name, memory in rows if memory == Memory()}
    wanted = models[0].name if content is None else content
    if isinstance(wanted, str):
        name, comma, memory_name = wanted.rpartition(",")
        if wanted in names:
            return names[wanted]
        if comma and (found := names.get(f"{name.strip()}, {_canonical(memory_name)}")):
            return found
    raise ValueError(
        f"baseline: no row is {wanted}: give the model the memory none, or name a row as MODEL, MEMORY: "
        + "; ".join(sorted(name for name in names if ", " in name))
    )


def _canonical(memory: str) -> str:
    try:
        return str(read_memory(memory))
    except ValueError:
        return memory


def _check_data(data: str, tune: str, test: str) -> None:
    folder = data_folders(data)[0]
    if not os.path.isfile(os.path.join(folder, "dict.txt")):
        raise ValueError(
            f"data: {folder} holds no dict.txt: make it with fairseq-preprocess --destdir {folder}"
        )
    for key, subset in (("tune", tune), ("test", test)):
        for ending in ("idx", "bin"):
            path = os.path.join(folder, f"{subset}.{ending}")
            if not os.path.isfile(path):
                raise ValueError(f"{key}: there is no {path}: name a subset of data")
    if tune == test:
        raise ValueError(
            f"tune: {tune} is the test subset, too: settings chosen on a text say nothing about others"
        )


def _check_keys(content: Any, known: Sequence[str], where: str) -> None:
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}needs the keys {', '.join(known)}")
    for key in content:
        if key not in known:
            raise ValueError(f"{where}{key}: no such key; there are {', '.join(known)}")


def _text(content: Content, key: str, otherwise: str | None) -> str:
    value = content.get(key, otherwise)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key}: " + ("missing" if value is None else f"must be a text, not {value!r}"))
    return value.strip()


def _texts(value: Any, where: str, wanted: str) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values:
        raise ValueError(f"{where}: missing: it is {wanted}")
    for entry in values:
        if not isinstance(entry, str) or not entry.strip():
            raise ValueError(f"{where}: {entry!r} must be a text")
    return tuple(entry.strip() for entry in values)


def _check_unique(values: Sequence[str], where: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{where}: {value} is there {values.count(value)} times: leave one")


def _words(value: Any, where: str) -> tuple[str, ...]:
    """Flags as one text, or as a list of words."""
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if not isinstance(value, list):
        raise ValueError(f"{where}: flags of fairseq-eval-lm as one text, not {value!r}")
    return tuple(str(word) for word in value)
