"""The commands of an experiment in translation. What is done stays."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quality import Translated, compare, read_translations
from steps import ROOT, Steps, file_name
from translation_experiment import Model, Row, TranslationExperiment
from translation_table import table

from trime_fairseq.files import write_json


@dataclass(kw_only=True)
class TranslationReproduction(Steps):
    """Runs the steps of an experiment.

    Args:
        experiment: what to do.
        text: prefix of the texts: ``text.train.es``, or ``.xz`` or ``.gz``, and so on.
    """

    experiment: TranslationExperiment
    text: str

    @property
    def data(self) -> Path:
        return self.out / "data-bin"

    @property
    def batches(self) -> Path:
        return self.out / "bm25" / "batches.json"

    @property
    def task(self) -> list[str]:
        wanted = self.experiment
        languages = ["--source-lang", wanted.source_lang, "--target-lang", wanted.target_lang]
        device = [] if self.gpus else ["--cpu"]
        return ["--user-dir", str(ROOT / "trime_fairseq"), "--task", "trime_translation", *languages, *device]

    @property
    def generation(self) -> list[str]:
        """Flags of every translation."""
        text = ["--tokenizer", "moses", "--remove-bpe", "--scoring", "sacrebleu"]
        return [*self.task, *text, *self.experiment.generation]

    def folder(self, model: Model) -> Path:
        return self.out / "models" / file_name(f"{model.name}-seed{self.experiment.seed}")

    def checkpoint(self, model: Model) -> Path:
        return self.folder(model) / "checkpoint_last.pt"

    def index(self, model: Model) -> Path:
        return self.folder(model) / "dstore" / f"knn_index.{model.metric}"

    def row_folder(self, row: Row) -> Path:
        return self.out / f"rows-seed{self.experiment.seed}" / file_name(row.name)

    def run(self) -> None:
        """All steps, in order."""
        self.prepare()
        models = self.experiment.used_models()
        if any(model.similar_batches for model in models):
            self.find_similar()
        self.together([(f"train {model.name}", self._training(model)) for model in models])
        searched = [model for model in models if self.experiment.searches(model)]
        self.together([(f"datastore of {model.name}", self._datastore(model)) for model in searched])
        # One at a time: their speed is measured.
        for number, row in enumerate(self.experiment.rows, 1):
            self.translate(row)
            print(f"[{number}/{len(self.experiment.rows)}] {row.name}", flush=True)
        if not self.dry_run:
            self.write_results()

    def prepare(self) -> None:
        """Text, in the manner of IWSLT'14; it knows by itself whether it is complete."""
        wanted = self.experiment
        languages = ("--source-lang", wanted.source_lang, "--target-lang", wanted.target_lang)
        script = ROOT / "scripts" / "prepare_translation.py"
        what = (*languages, "--bpe", wanted.bpe, "--destdir", self.data)
        self.command("prepare", None, sys.executable, script, self.text, *what)

    def find_similar(self) -> None:
        if not self.batches.exists():
            script = ROOT / "scripts" / "bm25_batches.sh"
            self.command("bm25", None, "bash", script, self.data, "sentences", self.batches.parent)

    def _training(self, model: Model) -> Callable[[int], None]:
        folder, updates = self.folder(model), self.experiment.updates * model.times
        done = folder / "updates.txt"

        def train(slot: int) -> None:
            if done.exists():
                trained = int(done.read_text())
                if trained != updates:
                    # What was made of it would be taken for that of the other model.
                    sys.exit(f"{folder} holds a model of {trained} updates: name another --out")
                return
            flags = [word.replace("BATCHES", str(self.batches)) for word in model.flags]
            self.command(
                f"train-{folder.name}",
                slot,
                *("fairseq-train", self.data, *self.task, *self.experiment.training),
                *("--max-update", updates, "--seed", self.experiment.seed, *flags),
                *("--save-dir", folder, "--no-epoch-checkpoints", "--no-progress-bar"),
            )
            if not self.dry_run:
                done.write_text(f"{updates}\n")

        return train

    def _datastore(self, model: Model) -> Callable[[int], None]:
        store, index = self.folder(model) / "dstore", self.index(model)
        name = self.folder(model).name

        def make(slot: int) -> None:
            path = ("--path", self.checkpoint(model), "--gen-subset", "train", "--score-reference")
            saving = ("--save-knnlm-dstore", "--dstore-mmap", f"{store}/", "--dstore-fp16", "--quiet")
            if not self.dry_run:
                store.mkdir(parents=True, exist_ok=True)
            limit = ("--max-tokens", 4096, "--skip-invalid-size-inputs-valid-test")
            self.command(
                f"datastore-{name}", slot, "fairseq-generate", self.data, *self.task, *path, *limit, *saving
            )
            files = ("--dstore_mmap", f"{store}/", "--faiss_index", index.with_suffix(""))
            metric = ("--dist", model.metric, "--probe", self.experiment.probe)
            self.command(f"index-{name}", slot, "trime-build-index", *files, *metric, *self.experiment.index)

        done = self.folder(model) / "index.done"

        def work(slot: int) -> None:
            if not done.exists():
                make(slot)
                if not self.dry_run:
                    done.touch()

        return work

    def translate(self, row: Row) -> None:
        """Tunes a row on the validation text, and translates the test text."""
        model = self.experiment.models[row.model]
        folder = self.row_folder(row)
        translated = folder / "test.txt"
        if translated.exists():
            return
        memory = self._tuned(row, model, folder) if row.form else []
        lenpen = self._tuned_lenpen(row, model, memory, folder)
        log = self._generate(row, model, "test", [*memory, "--lenpen", str(lenpen)])
        if not self.dry_run:
            read_translations(log)
            write_json(str(folder / "settings.json"), {"memory": memory, "lenpen": lenpen})
            translated.write_bytes(log.read_bytes())

    def _tuned(self, row: Row, model: Model, folder: Path) -> list[str]:
        """The flags of the memory with the best BLEU."""
        found = folder / "tuning.json"
        search = ["--use-knn-datastore", "--dstore-filename", f"{self.folder(model)}/dstore/"]
        search += ["--indexfile", str(self.index(model)), "--no-load-keys"]
        search += ["--probe", str(self.experiment.probe), "--knn-lambda-type", str(row.form)]
        if model.metric == "l2":
            search += ["--knn-sim-func", "do_not_recomp_l2"]
        if not found.exists():
            what = ("--gen-subset", "valid", "--path", self.checkpoint(model), *search)
            limits = ("--k", self.experiment.k, "--decode", self.experiment.decode, "--output", folder)
            command = ("trime-tune", self.data, *self.generation, "--lenpen", self.experiment.lenpens[0])
            self.command(self._named("tune", row), None, *command, *what, *limits)
        if self.dry_run:
            return [*search, "..."]
        best = json.loads(found.read_text(encoding="utf-8"))["best"]
        names = ("k", "knn_temperature_value", "knn_lambda_value")
        values = {name: best[name] for name in names if name in best}
        flags = [
            word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        return [*search, *flags]

    def _tuned_lenpen(self, row: Row, model: Model, memory: list[str], folder: Path) -> float:
        """The length penalty with the best BLEU: forms that favour long translations need another."""
        lenpens = self.experiment.lenpens
        if len(lenpens) == 1:
            return lenpens[0]
        found = folder / "lenpen.json"
        if not found.exists():
            scores = {}
            for lenpen in lenpens:
                log = self._generate(row, model, "valid", [*memory, "--lenpen", str(lenpen)], lenpen)
                scores[str(lenpen)] = 0.0 if self.dry_run else _bleu(read_translations(log))
            if self.dry_run:
                return lenpens[0]
            folder.mkdir(parents=True, exist_ok=True)
            write_json(str(found), scores)
        scores = json.loads(found.read_text(encoding="utf-8"))
        return float(max(scores, key=scores.__getitem__))

    def _generate(
        self, row: Row, model: Model, subset: str, flags: list[str], lenpen: float | None = None
    ) -> Path:
        name = self._named(subset, row) + ("" if lenpen is None else f"-lenpen{lenpen:g}")
        what = ("--gen-subset", subset, "--path", self.checkpoint(model))
        return self.command(name, None, "fairseq-generate", self.data, *self.generation, *what, *flags)

    def _named(self, step: str, row: Row) -> str:
        return f"{step}-{row.name}-seed{self.experiment.seed}"

    def write_results(self) -> None:
        """Compares the rows; writes the results, and prints the table."""
        rows = {}
        for row in self.experiment.rows:
            rows[row.name] = read_translations(self.row_folder(row) / "test.txt")
        found = compare(rows, self.experiment.against)
        for row in self.experiment.rows:
            settings = self.row_folder(row) / "settings.json"
            times = self.experiment.models[row.model].times
            found[row.name]["updates"] = self.experiment.updates * times
            found[row.name]["settings"] = json.loads(settings.read_text(encoding="utf-8"))
        text = table(found, self.experiment.against)
        about = {
            "sentences": len(next(iter(rows.values())).references),
            "seed": self.experiment.seed,
            "rows": found,
        }
        name = f"results-seed{self.experiment.seed}"
        write_json(str(self.out / f"{name}.json"), about)
        (self.out / f"{name}.md").write_text(text, encoding="utf-8")
        print(f"\n{text}", flush=True)


def _bleu(translated: Translated) -> float:
    from sacrebleu.metrics import BLEU

    numbers = sorted(translated.references)
    hypotheses = [translated.hypotheses[number] for number in numbers]
    references = [translated.references[number] for number in numbers]
    return float(BLEU().corpus_score(hypotheses, [references]).score)
