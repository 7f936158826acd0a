"""An experiment in translation: models that are trained alike, and the ways in which each is decoded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checked import SEED, check_keys, mapping, number, words

from trime_fairseq.files.yaml_file import read_yaml
from trime_fairseq.flags.bounds import Bounds

_KEYS = (
    *("source_lang", "target_lang", "bpe", "training", "updates", "times", "seed", "models"),
    *("generation", "lenpen", "index", "metrics", "k", "probe", "decode", "rows", "against"),
)
_NEEDED = {"source_lang", "target_lang", "training", "updates", "models", "rows"}
FORMS = ("trime", "trime-published", "trime-normalized", "fix")
METRICS = ("ip", "l2")


@dataclass(frozen=True)
class Model:
    """A model.

    Attributes:
        name: as in the file.
        flags: of fairseq-train, beside those of all models; they overrule these.
        metric: of the index of its keys.
        times: how many times the updates of the experiment it is trained for.
    """

    name: str
    flags: tuple[str, ...]
    metric: str
    times: int

    @property
    def similar_batches(self) -> bool:
        """Whether it trains on batches of similar sentences."""
        return "--predefined-batches" in self.flags


@dataclass(frozen=True)
class Row:
    """A way to translate: a line of the table.

    Attributes:
        name: as the table shows it.
        model: its name.
        form: how neighbours join; None without memory.
    """

    name: str
    model: str
    form: str | None


@dataclass(frozen=True)
class TranslationExperiment:
    """What a YAML file says.

    Attributes:
        source_lang, target_lang: the pair.
        bpe: merges.
        training: flags of fairseq-train, of all models.
        updates: of every training, times :attr:`Model.times`.
        seed: of every training.
        models: by name.
        generation: flags of fairseq-generate, of all rows.
        lenpens: length penalties to choose from, for every row.
        index: flags of trime-build-index.
        k: the most neighbours.
        probe: lists of the index to search.
        decode: how many settings of a row to decode on the validation text.
        rows: of the table, in its order.
        against: rows that the others are compared with.
    """

    source_lang: str
    target_lang: str
    bpe: int
    training: tuple[str, ...]
    updates: int
    seed: int
    models: Mapping[str, Model]
    generation: tuple[str, ...]
    lenpens: tuple[float, ...]
    index: tuple[str, ...]
    k: int
    probe: int
    decode: int
    rows: tuple[Row, ...]
    against: tuple[str, ...]

    def used_models(self) -> list[Model]:
        """Models of some row."""
        return [model for name, model in self.models.items() if any(row.model == name for row in self.rows)]

    def searches(self, model: Model) -> bool:
        """Whether some row needs the model's datastore."""
        return any(row.model == model.name and row.form for row in self.rows)


def read_translation_experiment(
    path: Path, updates: int | None = None, seed: int | None = None
) -> TranslationExperiment:
    """Reads an experiment.

    Args:
        path: YAML file.
        updates, seed: instead of those of the file.

    Raises:
        ValueError: naming file, key and fix.
    """
    content = read_yaml(path.read_text(encoding="utf-8"), str(path))
    check_keys(content, path, needed=_NEEDED, known=_KEYS)
    metrics = mapping(content.get("metrics", {}), f"{path}: metrics")
    times = mapping(content.get("times", {}), f"{path}: times")
    models = {
        name: Model(
            name,
            words(flags, f"{path}: models: {name}"),
            metrics.get(name, "ip"),
            number(times.get(name, 1), f"{path}: times: {name}"),
        )
        for name, flags in mapping(content["models"], f"{path}: models").items()
    }
    for name, metric in metrics.items():
        if name not in models or metric not in METRICS:
            raise ValueError(f"{path}: metrics: {name}: {metric}: a model, with one of {', '.join(METRICS)}")
    for name in times:
        if name not in models:
            raise ValueError(f"{path}: times: {name} is not among the models: {', '.join(models)}")
    rows = tuple(
        _row(path, name, entry, models) for name, entry in mapping(content["rows"], f"{path}: rows").items()
    )
    against = content.get("against", [rows[0].name] if rows else [])
    for name in against if isinstance(against, list) else [against]:
        if not isinstance(against, list) or name not in [row.name for row in rows]:
            raise ValueError(f"{path}: against: a list of rows, not {against!r}")
    if not against:
        raise ValueError(f"{path}: rows and against: none is there")
    if updates is not None:
        number(updates, "--updates")
    if seed is not None:
        number(seed, "--seed", SEED)
    return TranslationExperiment(
        source_lang=_language(content, path, "source_lang"),
        target_lang=_language(content, path, "target_lang"),
        bpe=number(content.get("bpe", 8000), f"{path}: bpe"),
        training=words(content["training"], f"{path}: training"),
        updates=updates or number(content["updates"], f"{path}: updates"),
        seed=number(content.get("seed", 1), f"{path}: seed", SEED) if seed is None else seed,
        models=models,
        generation=words(content.get("generation", ""), f"{path}: generation"),
        lenpens=_lenpens(content.get("lenpen", [1.0]), f"{path}: lenpen"),
        index=words(content.get("index", ""), f"{path}: index"),
        k=number(content.get("k", 32), f"{path}: k"),
        probe=number(content.get("probe", 32), f"{path}: probe"),
        decode=number(content.get("decode", 6), f"{path}: decode", Bounds(0, 1000)),
        rows=rows,
        against=tuple(against),
    )


def _row(path: Path, name: str, entry: Any, models: Mapping[str, Model]) -> Row:
    where = f"{path}: rows: {name}"
    check_keys(entry, where, needed={"model"}, known=("model", "memory"))
    if entry["model"] not in models:
        raise ValueError(f"{where}: {entry['model']} is not among the models: {', '.join(models)}")
    form = entry.get("memory")
    if form is not None and form not in FORMS:
        raise ValueError(f"{where}: memory: {form}: one of {', '.join(FORMS)}")
    return Row(name, entry["model"], form)


def _language(content: Mapping[str, Any], path: Path, key: str) -> str:
    value = content[key]
    # YAML 1.1 reads the language "no" as false.
    if not isinstance(value, str) or not value.isalnum():
        raise ValueError(f"{path}: {key}: a language such as de, in quotes, not {value!r}")
    return value


def _lenpens(values: Any, where: str) -> tuple[float, ...]:
    are_numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not are_numbers or not values or not all(0 <= value <= 100 for value in values):
        raise ValueError(f"{where}: a list of numbers, such as [0.6, 1.0], not {values!r}")
    return tuple(dict.fromkeys(map(float, values)))
