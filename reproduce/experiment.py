"""An experiment: a text, models that are trained alike, and the tables that compare them."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trime_fairseq.yaml_file import read_yaml

SUBSETS = ("train", "valid", "test")
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
    models = {name: _model(name, flags) for name, flags in content["models"].items()}
    found = {name: _table(path, name, entry, models) for name, entry in content["comparisons"].items()}
    for name in tables:
        if name not in found:
            raise ValueError(f"--tables {name}: {path} has {', '.join(found)}")
    chosen = [
        replace(table, seeds=tuple(seeds) or table.seeds, update=updates or table.update)
        for name, table in found.items()
        if not tables or name in tables
    ]
    return Experiment(
        threshold=content.get("threshold", 3),
        training=tuple(shlex.split(content["training"])),
        save_every=content.get("save_every") if updates is None else None,
        models=models,
        index=tuple(shlex.split(content.get("index", ""))),
        k=content.get("k", 64),
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


def _model(name: str, flags: str) -> Model:
    words = tuple(shlex.split(flags))
    return Model(name, words, similar_batches="--predefined-batches" in words)


def _table(path: Path, name: str, entry: Any, models: Mapping[str, Model]) -> Table:
    where = f"{path}: comparisons: {name}"
    _check_keys(entry, where, needed={"update", "rows"}, known=("update", "rows", "seeds", "evaluation"))
    for model in entry["rows"]:
        if model not in models:
            raise ValueError(f"{where}: {model} is not among the models: {', '.join(models)}")
    seeds = tuple(entry.get("seeds", (1,)))
    return Table(name, seeds, entry["update"], entry["rows"], entry.get("evaluation", {}))
