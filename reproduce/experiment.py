"""An experiment: a text, models that are trained alike, and the tables that compare them."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trime_fairseq.files.yaml_file import read_yaml
from trime_fairseq.flags.bounds import Bounds

SUBSETS = ("train", "valid", "test")
_POSITIVE, _SEED = Bounds(1, 10**9), Bounds(0, 2**32 - 1)
_KEYS = ("threshold", "training", "save_every", "models", "index", "k", "evaluation", "comparisons")


@dataclass(frozen=True)
class Model:
    """Models of one name, one per seed.

    Attributes:
        name: as tables show it.
        flags: of fairseq-train, beside those of all models; they overrule these.
        similar_batches: whether it trains on batches of similar segments.
    """

    name: str
    flags: tuple[str, ...]
    similar_batches: bool = False


@dataclass(frozen=True)
class Table:
    """One run of trime-compare.

    Attributes:
        name: of its folder.
        seeds: of the models that it compares.
        update: after how many updates of training.
        rows: memories by the name of the model.
        evaluation: flags of fairseq-eval-lm, by the name of the model.
    """

    name: str
    seeds: tuple[int, ...]
    update: int
    rows: Mapping[str, list[str]]
    evaluation: Mapping[str, str] = field(default_factory=dict)

    def searches(self, model: str) -> bool:
        """Whether a row of the model needs a datastore."""
        return any("knn" in memory or "external" in memory for memory in self.rows[model])


@dataclass(frozen=True)
class Experiment:
    """What a YAML file of this folder says.

    Attributes:
        threshold: words that are rarer in the training text are unknown.
        training: flags of fairseq-train, of all models.
        save_every: updates between the checkpoints that are kept; None for the last only.
        models: by name.
        index: flags of trime-build-index.
        k: neighbours that are searched.
        evaluation: flags of fairseq-eval-lm, of all models.
        tables: what to compare.
    """

    threshold: int
    training: tuple[str, ...]
    save_every: int | None
    models: Mapping[str, Model]
    index: tuple[str, ...]
    k: int
    evaluation: str
    tables: tuple[Table, ...]

    @property
    def segment(self) -> int:
        """Tokens of a segment."""
        return int(self.training[self.training.index("--tokens-per-sample") + 1])

    def trainings(self) -> list[tuple[Model, int]]:
        """Models and seeds that some table compares, in the order of the file, seed by seed."""
        wanted = {(name, seed) for table in self.tables for name in table.rows for seed in table.seeds}
        seeds = sorted({seed for _, seed in wanted})
        return [
            (model, seed) for seed in seeds for name, model in self.models.items() if (name, seed) in wanted
        ]

    def updates(self, model: Model, seed: int) -> int:
        """How long to train: what the longest of its tables asks for."""
        return max(t.update for t in self.tables if model.name in t.rows and seed in t.seeds)

    def datastores(self) -> list[tuple[Model, int, int]]:
        """Models, seeds and numbers of updates whose keys are searched."""
        wanted = {
            (name, seed, table.update)
            for table in self.tables
            for name in table.rows
            if table.searches(name)
            for seed in table.seeds
        }
        return [(self.models[name], seed, update) for name, seed, update in sorted(wanted)]


def read_experiment(
    path: Path, tables: Sequence[str] = (), seeds: Sequence[int] = (), updates: int | None = None
) -> Experiment:
    """Reads an experiment.

    Args:
        path: YAML file.
        tables: names of those to make; all by default.
        seeds, updates: instead of those of the file.

    Raises:
        ValueError: naming file, key and fix.
    """
    content = read_yaml(path.read_text(encoding="utf-8"), str(path))
    _check_keys(content, path, needed={"training", "models", "comparisons"}, known=_KEYS)
    named = {key: _mapping(content[key], f"{path}: {key}") for key in ("models", "comparisons")}
    models = {
        name: _model(name, _words(flags, f"{path}: models: {name}"))
        for name, flags in named["models"].items()
    }
    found = {name: _table(path, name, entry, models) for name, entry in named["comparisons"].items()}
    for name in tables:
        if name not in found:
            raise ValueError(f"--tables {name}: {path} has {', '.join(found)}")
    if updates is not None:
        _number(updates, "--updates")
    _seeds(seeds, "--seeds")
    chosen = [
        replace(table, seeds=tuple(seeds) or table.seeds, update=updates or table.update)
        for name, table in found.items()
        if not tables or name in tables
    ]
    save_every = content.get("save_every")
    if save_every is not None:
        _number(save_every, f"{path}: save_every")
    _words(content.get("evaluation", ""), f"{path}: evaluation")
    return Experiment(
        threshold=_number(content.get("threshold", 3), f"{path}: threshold", Bounds(0)),
        training=_words(content["training"], f"{path}: training"),
        save_every=save_every if updates is None else None,
        models=models,
        index=_words(content.get("index", ""), f"{path}: index"),
        k=_number(content.get("k", 64), f"{path}: k"),
        evaluation=content.get("evaluation", ""),
        tables=tuple(chosen),
    )


def _check_keys(content: Any, where: Any, needed: set[str], known: Sequence[str]) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where}: needs the keys {', '.join(sorted(needed))}")
    for key in sorted(needed - set(content)):
        raise ValueError(f"{where}: the key {key} is missing")
    for key in content:
        if key not in known:
            raise ValueError(f"{where}: {key}: no such key; there are {', '.join(known)}")


def _mapping(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{where}: needs names, each with what belongs to it")
    return content


def _words(flags: Any, where: str) -> tuple[str, ...]:
    if not isinstance(flags, str):
        raise ValueError(f"{where}: flags as one text, not {flags!r}")
    try:
        return tuple(shlex.split(flags))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _number(value: Any, where: str, bounds: Bounds = _POSITIVE) -> int:
    if type(value) is not int:
        raise ValueError(f"{where} must be a whole number, not {value!r}")
    problem = bounds.problem(value)
    if problem:
        raise ValueError(f"{where} {problem}")
    return value


def _seeds(values: Any, where: str) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{where}: a list of whole numbers, such as [1, 2, 3], not {values!r}")
    for value in values:
        _number(value, where, _SEED)
        if values.count(value) > 1:
            raise ValueError(f"{where}: {value} is there {values.count(value)} times: leave one")
    return tuple(values)


def _model(name: str, words: tuple[str, ...]) -> Model:
    return Model(name, words, similar_batches="--predefined-batches" in words)


def _table(path: Path, name: str, entry: Any, models: Mapping[str, Model]) -> Table:
    where = f"{path}: comparisons: {name}"
    _check_keys(entry, where, needed={"update", "rows"}, known=("update", "rows", "seeds", "evaluation"))
    for model in _mapping(entry["rows"], f"{where}: rows"):
        if model not in models:
            raise ValueError(f"{where}: {model} is not among the models: {', '.join(models)}")
    seeds = _seeds(entry.get("seeds", (1,)), f"{where}: seeds")
    if not seeds:
        raise ValueError(f"{where}: seeds: none is there")
    update = _number(entry["update"], f"{where}: update")
    return Table(name, seeds, update, entry["rows"], entry.get("evaluation", {}))
