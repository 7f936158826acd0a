"""The flags of memories in translation, and what contradicts what."""

import ast
import os
from dataclasses import dataclass, field, fields
from typing import List, Optional, Tuple

from fairseq import utils
from fairseq.dataclass import ChoiceEnum
from omegaconf import II

from ..datastore import SIMILARITIES
from ..datastore.layout import folder_prefix, manifest_path
from ..evaluation.config import MOST_NEIGHBORS, check_shards
from ..evaluation.datastore_config import DatastoreConfig, check_index_name
from ..files import check_writable
from ..flags import flag
from ..flags.bounds import TEMPERATURE, Bounds, check_bounds
from .mixture import LAMBDA_TYPES

# Published overrides that are no flags here, beside those that begin with knn_.
_PUBLISHED = ("load_knn_datastore", "use_gpu_to_search", "max_k", "only_use_max_idx")
# Published choices of which one is left: what "trainable" would need is not part of TRIME.
_TRAINABLE = "the Meta-k network of adaptive kNN-MT, which is not part of this package"


@dataclass
class TranslationMemoryConfig(DatastoreConfig):
    """Which datastore a translation searches, and how its neighbours join the model's distribution.

    How the distributions mix: :mod:`trime_fairseq.generation.mixture`.
    """

    use_knn_datastore: bool = field(
        default=False, metadata={"help": "memory: the --k nearest keys of a datastore"}
    )
    load_knn_datastore: bool = field(
        default=False, metadata={"help": "of published commands, beside --use-knn-datastore"}
    )
    index_filename: Optional[str] = field(
        default=None, metadata={"help": "name of the Faiss index inside of the folder --dstore-filename"}
    )
    knn_sim_func: Optional[ChoiceEnum(("dot", *SIMILARITIES))] = field(  # type: ignore[valid-type]
        default=None,
        metadata={
            "help": "compute the neighbours' scores from the keys: ip (published as dot), l2 or cos; "
            "do_not_recomp_l2: take Faiss's approximate L2 distances; by default Faiss's scores, but exact "
            "L2 distances"
        },
    )
    k: int = field(default=8, metadata={"help": "number of neighbours", "bounds": Bounds(1, MOST_NEIGHBORS)})
    # No choice for the parser: it could not say why "trainable" is none.
    knn_lambda_type: str = field(
        default="trime",
        metadata={
            "help": "how neighbours join: trime (one softmax over tokens and neighbours, as in training), "
            "fix (kNN-MT: weight --knn-lambda-value), trime-published (the neighbours' share added whole: "
            "sums to more than 1), trime-normalized (the same, divided by its sum)"
        },
    )
    knn_lambda_value: Optional[float] = field(
        default=None,
        metadata={"help": "weight of the neighbours, in [0, 1); needed with --knn-lambda-type fix"},
    )
    knn_temperature_value: float = field(
        default=10.0, metadata={"help": "temperature of the neighbours' scores", "bounds": TEMPERATURE}
    )
    knn_temperature_type: str = field(
        default="fix", metadata={"help": "of published commands; fix is the only one"}
    )
    knn_k_type: str = field(default="fix", metadata={"help": "of published commands; fix is the only one"})
    # Of other groups.
    path: Optional[str] = II("common_eval.path")
    model_overrides: str = II("common_eval.model_overrides")
    gen_subset: str = II("dataset.gen_subset")
    num_shards: int = field(default=II("dataset.num_shards"), metadata={"bounds": Bounds(1)})
    shard_id: int = field(default=II("dataset.shard_id"), metadata={"bounds": Bounds(0)})

    def check(self) -> None:
        """Raises ValueError, naming the flag and the fix, if flags contradict each other."""
        check_bounds(type(self), self)
        self._check_overrides()
        if self.check_recall:
            raise ValueError("--check-recall: of fairseq-eval-lm only")
        for name in ("knn_temperature_type", "knn_k_type"):
            if getattr(self, name) != "fix":
                raise ValueError(f"{flag(name)} {getattr(self, name)}: only fix; trainable is {_TRAINABLE}")
        if self.knn_lambda_type not in LAMBDA_TYPES:
            trainable = self.knn_lambda_type == "trainable"
            what = f" ({_TRAINABLE})" if trainable else ""
            names = ", ".join(LAMBDA_TYPES)
            raise ValueError(f"--knn-lambda-type {self.knn_lambda_type}{what}: one of {names}")
        if self.use_knn_datastore:
            self._check_search()
        else:
            self._check_no_search()
        self._check_writing()

    def refuse_memory(self, why: str) -> None:
        """Raises ValueError if the flags ask for a memory."""
        if self.use_knn_datastore:
            raise ValueError(f"--use-knn-datastore: {why}")

    @property
    def similarity(self) -> Optional[str]:
        """How scores are computed, in the words of the datastore room."""
        return "ip" if self.knn_sim_func == "dot" else self.knn_sim_func

    def stores(self) -> List[Tuple[str, str]]:
        """Datastore and index of each model of the ensemble, in the order of ``--path``."""
        folders = utils.split_paths(self.dstore_filename)
        if self.indexfile:
            indexes = utils.split_paths(self.indexfile)
            if len(indexes) != len(folders):
                raise ValueError(
                    f"--dstore-filename names {len(folders)} datastores, --indexfile {len(indexes)} indexes: "
                    "one for each"
                )
        else:
            indexes = [os.path.join(folder, str(self.index_filename)) for folder in folders]
        return list(zip(folders, indexes))

    def _check_search(self) -> None:
        if self.save_knnlm_dstore:
            raise ValueError("--save-knnlm-dstore: not with --use-knn-datastore, write it first")
        if not self.dstore_filename:
            raise ValueError("--use-knn-datastore needs --dstore-filename DIR, the datastore")
        if self.indexfile and self.index_filename:
            raise ValueError("--indexfile and --index-filename both name the index: leave one of them out")
        if not (self.indexfile or self.index_filename):
            raise ValueError(
                "--use-knn-datastore needs --index-filename NAME, the index inside of --dstore-filename, or "
                "--indexfile FILE"
            )
        given = self.knn_lambda_value
        if self.knn_lambda_type == "fix" and (given is None or not 0.0 <= given < 1.0):
            value = "" if given is None else f", not {given}"
            raise ValueError(
                f"--knn-lambda-value, the weight of --knn-lambda-type fix, is needed, in [0, 1){value}"
            )
        # Published commands have a 0 there.
        if self.knn_lambda_type != "fix" and given:
            raise ValueError(
                f"--knn-lambda-value is the weight of --knn-lambda-type fix; {self.knn_lambda_type} computes "
                "it: leave it out"
            )
        for folder, index in self.stores():
            if self.index_filename and not os.path.isdir(folder):
                raise ValueError(
                    f"--index-filename {self.index_filename} lies in the folder --dstore-filename, but "
                    f"{folder} is none: pass --indexfile FILE"
                )
            check_index_name("--index-filename" if self.index_filename else "--indexfile", index)

    def _check_no_search(self) -> None:
        of_search = [
            *("load_knn_datastore", "dstore_filename", "indexfile", "index_filename", "k", "probe"),
            *("faiss_metric_type", "knn_sim_func", "no_load_keys", "move_dstore_to_mem", "use_faiss_cpu"),
            *("knn_lambda_type", "knn_lambda_value", "knn_temperature_value"),
        ]
        defaults = {entry.name: entry.default for entry in fields(self)}
        given = [name for name in of_search if getattr(self, name) != defaults[name]]
        if given:
            names = " and ".join(map(flag, given))
            raise ValueError(f"{names}: nothing is searched, pass --use-knn-datastore as well")
        if (self.dstore_size or self.dstore_fp16) and not self.save_knnlm_dstore:
            raise ValueError("--dstore-size and --dstore-fp16: no datastore is written or searched")

    def _check_writing(self) -> None:
        if not self.save_knnlm_dstore:
            if self.dstore_mmap:
                raise ValueError("--dstore-mmap writes: pass --save-knnlm-dstore as well")
            return
        if not self.dstore_mmap:
            raise ValueError("--save-knnlm-dstore needs --dstore-mmap DIR, the folder to write it to")
        models = len(utils.split_paths(self.path)) if self.path else 0
        if models > 1:
            raise ValueError(
                f"--save-knnlm-dstore: the keys of a datastore are one model's, but --path names {models}: "
                "write one for each"
            )
        check_shards(self)
        check_writable("--dstore-mmap", manifest_path(folder_prefix(self.dstore_mmap)))

    def _check_overrides(self) -> None:
        """Published commands have all this in --model-overrides, which changes nothing here."""
        try:
            overrides = ast.literal_eval(self.model_overrides or "{}")
        except (SyntaxError, ValueError):
            return  # fairseq says so
        names = {entry.name for entry in fields(self) if not str(entry.default).startswith("${")}
        for name in overrides:
            if name in names:
                raise ValueError(
                    f"--model-overrides has {name}, which is a flag of --task trime_translation: {flag(name)}"
                )
            if name in _PUBLISHED or str(name).startswith("knn_"):
                raise ValueError(
                    f"--model-overrides has {name}, which this package does not know: leave it out"
                )
