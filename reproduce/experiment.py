"""An experiment: a text, models that are trained alike, and the tables that compare them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from checked import check_keys, mapping, number, words
from checked import seeds as checked_seeds

from trime_fairseq.files.yaml_file import read_yaml
from trime_fairseq.flags.bounds import Bounds

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
    check_keys(content, path, needed={"training", "models", "comparisons"}, known=_KEYS)
    named = {key: mapping(content[key], f"{path}: {key}") for key in ("models", "comparisons")}
    models = {
        name: _model(name, words(flags, f"{path}: models: {name}")) for name, flags in named["models"].items()
    }
    found = {name: _table(path, name, entry, models) for name, entry in named["comparisons"].items()}
    for name in tables:
        if name not in found:
            raise ValueError(f"--tables {name}: {path} has {', '.join(found)}")
    if updates is not None:
        number(updates, "--updates")
    checked_seeds(seeds, "--seeds")
    chosen = [
        replace(table, seeds=tuple(seeds) or table.seeds, update=updates or table.update)
        for name, table in found.items()
        if not tables or name in tables
    ]
    save_every = content.get("save_every")
    if save_every is not None:
        number(save_every, f"{path}: save_every")
    words(content.get("evaluation", ""), f"{path}: evaluation")
    return Experiment(
        threshold=number(content.get("threshold", 3), f"{path}: threshold", Bounds(0)),
        training=words(content["training"], f"{path}: training"),
        save_every=save_every if updates is None else None,
        models=models,
        index=words(content.get("index", ""), f"{path}: index"),
        k=number(content.get("k", 64), f"{path}: k"),
        evaluation=content.get("evaluation", ""),
        tables=tuple(chosen),
    )


def _model(name: str, words: tuple[str, ...]) -> Model:
    return Model(name, words, similar_batches="--predefined-batches" in words)


def _table(path: Path, name: str, entry: Any, models: Mapping[str, Model]) -> Table:
    where = f"{path}: comparisons: {name}"
    check_keys(entry, where, needed={"update", "rows"}, known=("update", "rows", "seeds", "evaluation"))
    for model in mapping(entry["rows"], f"{where}: rows"):
        if model not in models:
            raise ValueError(f"{where}: {model} is not among the models: {', '.join(models)}")
    seeds = checked_seeds(entry.get("seeds", (1,)), f"{where}: seeds")
    if not seeds:
        raise ValueError(f"{where}: seeds: none is there")
    update = number(entry["update"], f"{where}: update")
    return Table(name, seeds, update, entry["rows"], entry.get("evaluation", {}))
