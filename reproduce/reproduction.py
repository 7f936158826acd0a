"""The commands of an experiment: text, batches, trainings, datastores, comparisons. What is done stays."""

import lzma
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from experiment import SUBSETS, Experiment, Model, Table
from steps import ROOT, Steps, file_name


@dataclass(kw_only=True)
class Reproduction(Steps):
    """Runs the steps of an experiment.

    Args:
        experiment: what to do.
        text: prefix of the texts: ``text + "train.txt"`` or ``.txt.xz``, and so on.
    """

    experiment: Experiment
    text: str

    @property
    def data(self) -> Path:
        return self.out / "data-bin"

    @property
    def task(self) -> list[str]:
        device = [] if self.gpus else ["--cpu"]
        return ["--user-dir", str(ROOT / "trime_fairseq"), "--task", "trime_language_modeling", *device]

    @property
    def batches(self) -> Path:
        return self.out / "bm25" / "batches.json"

    def folder(self, model: Model, seed: int) -> Path:
        return self.out / "models" / f"{file_name(model.name)}-seed{seed}"

    def run(self) -> None:
        """All steps, in order; trainings that need no similar batches begin first."""
        self.preprocess()
        trainings = self.experiment.trainings()
        if any(model.similar_batches for model, _ in trainings):
            self.find_similar()
        self.together([(f"train {m.name}, seed {s}", self._training(m, s)) for m, s in trainings])
        stores = self.experiment.datastores()
        self.together(
            [(f"datastore of {m.name}, seed {s}, update {u}", self._datastore(m, s, u)) for m, s, u in stores]
        )
        for table in self.experiment.tables:
            self.compare(table)

    def preprocess(self) -> None:
        if (self.data / "test.idx").exists():
            return
        words: list[Any] = []
        for subset in SUBSETS:
            words += [f"--{subset}pref", self._plain_text(subset)]
        threshold = ("--thresholdsrc", self.experiment.threshold)
        self.command(
            "preprocess",
            None,
            "fairseq-preprocess",
            "--only-source",
            *words,
            *threshold,
            "--destdir",
            self.data,
        )

    def _plain_text(self, subset: str) -> Path:
        plain, packed = Path(f"{self.text}{subset}.txt"), Path(f"{self.text}{subset}.txt.xz")
        if plain.exists():
            return plain
        if not packed.exists():
            sys.exit(f"--text {self.text}: there is neither {plain} nor {packed}")
        target = self.out / "text" / plain.name
        if not target.exists() and not self.dry_run:
            target.parent.mkdir(parents=True, exist_ok=True)
            with lzma.open(packed) as source, target.with_suffix(".tmp").open("wb") as file:
                shutil.copyfileobj(source, file)
            target.with_suffix(".tmp").rename(target)
        return target

    def find_similar(self) -> None:
        if self.batches.exists():
            return
        script = ROOT / "scripts" / "bm25_batches.sh"
        self.command("bm25", None, "bash", script, self.data, self.experiment.segment, self.batches.parent)

    def _training(self, model: Model, seed: int) -> Callable[[int], None]:
        folder, experiment = self.folder(model, seed), self.experiment

        updates, done = experiment.updates(model, seed), folder / "updates.txt"

        def train(slot: int) -> None:
            if done.exists() and int(done.read_text()) >= updates:
                return
            keep = ("--save-interval-updates", experiment.save_every) if experiment.save_every else ()
            flags = [word.replace("BATCHES", str(self.batches)) for word in model.flags]
            self.command(
                f"train-{folder.name}",
                slot,
                *("fairseq-train", self.data, *self.task, *experiment.training),
                *("--max-update", updates, "--seed", seed, *keep, *flags),
                *("--save-dir", folder, "--no-epoch-checkpoints", "--no-progress-bar"),
            )
            if not self.dry_run:
                done.write_text(f"{updates}\n")

        return train

    def _datastore(self, model: Model, seed: int, update: int) -> Callable[[int], None]:
        folder, prefix, index = self.folder(model, seed), *self._store(model, seed, update)
        name = f"{folder.name}-{update}"

        def make(slot: int) -> None:
            path = ("--path", self.checkpoint(model, seed, update))
            saving = ("--save-knnlm-dstore", "--dstore-mmap", prefix, "--dstore-fp16")
            what = (*path, "--gen-subset", "train", *saving, *self.experiment.evaluation.split())
            self.command(f"datastore-{name}", slot, "fairseq-eval-lm", self.data, *self.task, *what)
            files = ("--dstore_mmap", prefix, "--faiss_index", index.with_suffix(""))
            self.command(f"index-{name}", slot, "trime-build-index", *files, *self.experiment.index)

        return lambda slot: None if index.exists() else make(slot)

    def _store(self, model: Model, seed: int, update: int) -> tuple[Path, Path]:
        """The prefix of a datastore, and its index, which is named after its metric."""
        folder, words = self.folder(model, seed), self.experiment.index
        metric = words[words.index("--dist") + 1] if "--dist" in words else "l2"
        return folder / f"dstore-{update}", folder / f"knn-{update}.{metric}"

    def checkpoint(self, model: Model, seed: int, update: int) -> Path:
        """The file after so many updates.

        Raises:
            SystemExit: if there is none, since an earlier command trained longer and kept no others.
        """
        folder = self.folder(model, seed)
        every = self.experiment.save_every
        if every and update % every == 0:
            return next(folder.glob(f"checkpoint_*_{update}.pt"), folder / f"checkpoint_1_{update}.pt")
        done = folder / "updates.txt"
        if done.exists() and int(done.read_text()) != update:
            sys.exit(f"{folder} holds a model of {done.read_text().strip()} updates: name another --out")
        return folder / "checkpoint_last.pt"

    def compare(self, table: Table) -> None:
        """Writes the YAML of trime-compare, and runs it."""
        folder = self.out / table.name
        models = {}
        for name, memories in table.rows.items():
            model = self.experiment.models[name]
            models[name] = {
                "checkpoint": [str(self.checkpoint(model, seed, table.update)) for seed in table.seeds],
                "memories": memories,
            }
            if name in table.evaluation:
                models[name]["evaluation"] = table.evaluation[name]
            if table.searches(name):
                models[name]["datastore"] = [
                    self._search_of(model, seed, table.update) for seed in table.seeds
                ]
        content = {"data": str(self.data), "evaluation": self.experiment.evaluation, "models": models}
        path = self.out / f"{table.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        self.command(
            f"compare-{table.name}", None, "trime-compare", path, "--output", folder, *self.task, show=True
        )

    def _search_of(self, model: Model, seed: int, update: int) -> dict[str, Any]:
        prefix, index = self._store(model, seed, update)
        files = {"dstore_filename": str(prefix), "indexfile": str(index)}
        return {**files, "k": self.experiment.k, "no_load_keys": True}
