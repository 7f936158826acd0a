"""Flags of ``fairseq-eval-lm`` in a comparison: which the user gives, which the comparison gives itself."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..datastore.index.manifest import index_manifest_path
from ..datastore.layout import keys_path, manifest_path, values_path
from ..evaluation.config import SEARCH_FLAGS, MemoryConfig
from ..evaluation.datastore_config import DatastoreConfig, check_index_name
from ..flags import flag
from ..flags.bounds import bounds_of
from ..models.config import KeyConfig

# Keys of a datastore in a comparison.
_STORE_KEYS = (*SEARCH_FLAGS, "k", "dstore_size", "dstore_fp16")
_KEY_FIELDS = tuple(entry.name for entry in fields(KeyConfig) if entry.name != "_name")


def _names(config: type) -> set[str]:
    return {entry.name for entry in fields(config) if entry.name != "_name"}


def given_flags(words: Sequence[str]) -> dict[str, str]:
    """Names, with underscores, of the flags among arguments; the value is the word that follows."""
    found = {}
    for number, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            follows = words[number + 1] if number + 1 < len(words) else ""
            found[name.replace("-", "_")] = value if equals else follows
    return found


def check_evaluation_flags(words: Sequence[str], where: str) -> None:
    """Refuses flags that say what the comparison decides: which memories, which checkpoint, which text.

    Raises:
        ValueError: naming ``where`` the flag was given, and the fix.
    """
    given = given_flags(words)
    instead = dict.fromkeys(_names(MemoryConfig), "give the model this memory, under memories")
    instead |= dict.fromkeys((*_names(DatastoreConfig), "k"), "give it to the model, under datastore")
    instead |= dict.fromkeys(("save_knnlm_dstore", "dstore_mmap"), "write the datastore first")
    instead |= {"path": "name the file under models: checkpoint", "gen_subset": "name the subset under test"}
    instead |= dict.fromkeys(
        ("num_shards", "shard_id", "eval_file"), "leave it out: one process does the work"
    )
    for name in given:
        if name in instead and name not in _KEY_FIELDS:
            raise ValueError(f"{where}: {flag(name)}: {instead[name]}")
    if given.get("distributed_world_size", "1") != "1":
        raise ValueError(f"{where}: --distributed-world-size: leave it out: one process does the work")


def key_settings(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What arguments say of the fields of :class:`KeyConfig`, and the other arguments."""
    found: dict[str, str] = {}
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--") or name not in _KEY_FIELDS:
            others.append(word)
        elif name != "exact_tails":
            found[name] = value if equals else next(rest, "")
    return found, others


def search_flags(content: Any, where: str) -> tuple[tuple[str, ...], int]:
    """The arguments of ``fairseq-eval-lm`` that open a datastore, and the most neighbours.

    Args:
        content: flags by their names, with underscores or hyphens.
        where: begins error messages.

    Raises:
        ValueError: naming key and fix.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: needs the keys dstore_filename and indexfile")
    values = {str(key).replace("-", "_"): value for key, value in content.items()}
    for key in values:
        if key not in _STORE_KEYS:
            raise ValueError(f"{where}: {key}: no such key; there are {', '.join(_STORE_KEYS)}")
    for key in ("dstore_filename", "indexfile"):
        if not isinstance(values.get(key), str):
            raise ValueError(f"{where}: {key}: missing: it is a path")
    _check_files(values, where)
    k = values.pop("k", MemoryConfig.k)
    if type(k) is not int or k < 1:
        raise ValueError(f"{where}: k: must be a positive integer, not {k!r}")
    _check_numbers({**values, "k": k}, where)
    words: list[str] = []
    for key, value in values.items():
        if isinstance(value, (Mapping, list)) or value is None:
            raise ValueError(f"{where}: {key}: must be one value, not {value!r}")
        if value is not False:
            words += [flag(key)] if value is True else [flag(key), str(value)]
    return tuple(words), k


def store_files(words: Sequence[str]) -> list[str]:
    """The files of the datastore that arguments name."""
    given = given_flags(words)
    prefix, index = given["dstore_filename"], given["indexfile"]
    keys = [keys_path(prefix, dtype) for dtype in ("float32", "float16")]
    return [manifest_path(prefix), *keys, values_path(prefix), index, index_manifest_path(index)]


def _check_numbers(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        bounds = bounds_of(MemoryConfig if key == "k" else DatastoreConfig, key)
        if bounds is None or value is None or isinstance(value, (Mapping, list)):
            continue  # refused with all that is not one value
        if type(value) is not int:
            raise ValueError(f"{where}: {key}: must be an integer, not {value!r:.50}")
        problem = bounds.problem(value)
        if problem:
            raise ValueError(f"{where}: {key}: {problem}")


def _check_files(values: Mapping[str, Any], where: str) -> None:
    tokens, index = values_path(values["dstore_filename"]), values["indexfile"]
    check_index_name(f"{where}: indexfile:", index)
    for key, path, fix in (
        ("dstore_filename", tokens, "write it by fairseq-eval-lm --save-knnlm-dstore"),
        ("indexfile", index, "build it by trime-build-index"),
    ):
        if not os.path.isfile(path):
            raise ValueError(f"{where}: {key}: there is no file {path}: {fix}")
