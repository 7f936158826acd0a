"""The flags of an evaluation: which memories, which datastore, and what contradicts what."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Optional, TypeVar

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks.language_modeling import LanguageModelingConfig
from omegaconf import II

from ..datastore import METRICS, SIMILARITIES, DatastoreError
from ..files import check_writable
from ..flags import flag, name_flags
from ..models.config import KeyConfig

MODES = ("gn", "lm", "li")
# Flags that would do nothing without a search.
SEARCH_FLAGS = (
    *("dstore_filename", "indexfile", "probe", "faiss_metric_type", "knn_sim_func", "no_load_keys"),
    *("move_dstore_to_mem", "use_faiss_cpu", "check_recall"),
)

# Flags of arguments that errors of the datastore room name, where :func:`flag` does not tell.
_FLAGS = {
    "begin": "--batch-size",
    "devices": "--use-faiss-cpu",
    "end": "--max-tokens",
    "fp16": "--dstore-fp16",
    "key_dtype": "--dstore-fp16",
    "load_keys": "--no-load-keys",
    "metric": "--faiss-metric-type",
    "model": "--path",
    "name": "--indexfile",
    "need_keys": "--no-load-keys",
    "prefix": "--dstore-mmap",
    "rows": "--dstore-size",
    "similarity": "--knn-sim-func",
    "size": "--check-recall",
}

Config = TypeVar("Config", bound=FairseqDataclass)


@contextmanager
def flags_named() -> Iterator[None]:
    """Errors of the datastore room name the flags of an evaluation, not their own arguments."""
    try:
        yield
    except DatastoreError as error:
        raise DatastoreError(name_flags(str(error), **_FLAGS)) from error


@dataclass
class MemoryConfig(KeyConfig):
    """Which memories an evaluation uses, and how they are combined with the model's own distribution.

    The modes: ``gn`` normalises over tokens and memories together (TRIME), ``lm`` is the plain model, ``li``
    interpolates the softmax over memories with that over tokens (continuous cache).
    """

    use_local: bool = field(
        default=False,
        metadata={"help": "memory: earlier tokens of the model input, context window included"},
    )
    use_long: bool = field(
        default=False,
        metadata={"help": "memory: the last --mem-size evaluated tokens before the sample"},
    )
    mem_size: int = field(default=0, metadata={"help": "size of the long-term memory, in tokens"})
    softmax_temp: float = field(default=1.0, metadata={"help": "temperature of the similarities to memories"})
    mode: ChoiceEnum(MODES) = field(  # type: ignore[valid-type]
        default="gn",
        metadata={
            "help": "gn: joint softmax over tokens and memories; lm: the plain model; "
            "li: linear interpolation of memory softmax and token softmax"
        },
    )
    cache_lmbda: Optional[float] = field(
        default=None, metadata={"help": "weight of the memory softmax in --mode li"}
    )
    use_external: bool = field(
        default=False, metadata={"help": "memory: the --k nearest keys of a datastore"}
    )
    k: int = field(default=1024, metadata={"help": "number of neighbours"})
    use_interp: bool = field(
        default=False, metadata={"help": "interpolate with the distribution of the neighbours alone"}
    )
    interp_temp: float = field(default=1.0, metadata={"help": "temperature of the neighbours' distribution"})
    lmbda: Optional[float] = field(
        default=None, metadata={"help": "weight of the neighbours' distribution, in [0, 1]"}
    )
    knnlm: bool = field(
        default=False,
        metadata={"help": "plain kNN-LM: interpolate the plain model, temperature --softmax-temp"},
    )

    def check(self) -> None:
        """Raises ValueError, naming the flag and the fix, if the settings contradict each other."""
        if not 0 < self.softmax_temp < math.inf:
            raise ValueError(f"--softmax-temp must be positive, not {self.softmax_temp}")
        if self.mem_size < 0:
            raise ValueError(f"--mem-size must be positive, not {self.mem_size}")
        if self.use_long and not self.use_local:
            raise ValueError("--use-long adds to the local memory: pass --use-local as well")
        if self.use_long and self.mem_size == 0:
            raise ValueError("--use-long needs --mem-size N, the number of preceding tokens to keep")
        if self.mem_size > 0 and not self.use_long:
            raise ValueError("--mem-size is the size of the long-term memory: pass --use-long as well")
        if self.mode == "li":
            if not (self.use_local or self.use_external):
                raise ValueError("--mode li interpolates with a memory: pass --use-local as well")
            if self.cache_lmbda is None or not 0.0 <= self.cache_lmbda < 1.0:
                raise ValueError("--mode li needs --cache-lmbda, the weight of the memory, in [0, 1)")
        elif self.cache_lmbda is not None:
            raise ValueError("--cache-lmbda is the weight of --mode li: pass --mode li as well")

        self._check_external()

    def _check_external(self) -> None:
        if self.k < 1:
            raise ValueError(f"--k must be positive, not {self.k}")
        if not 0 < self.interp_temp < math.inf:
            raise ValueError(f"--interp-temp must be positive, not {self.interp_temp}")
        if self.knnlm:
            if self.use_local or self.use_external or self.use_interp or self.mode != "gn":
                raise ValueError(
                    "--knnlm is the plain kNN-LM: no --use-local, --use-external, --use-interp or --mode"
                )
            if self.interp_temp != 1.0:
                raise ValueError("--knnlm takes its temperature from --softmax-temp, not --interp-temp")
        elif self.use_interp:
            if not self.use_external:
                raise ValueError("--use-interp interpolates with the neighbours: pass --use-external as well")
            if self.mode != "gn":
                raise ValueError(f"--use-interp interpolates with --mode gn, not {self.mode}")
        elif self.lmbda is not None or self.interp_temp != 1.0:
            raise ValueError("--lmbda and --interp-temp are for --use-interp: pass it as well")
        if (self.knnlm or self.use_interp) and (self.lmbda is None or not 0.0 <= self.lmbda <= 1.0):
            raise ValueError("--lmbda, the weight of the neighbours' distribution, is needed, in [0, 1]")

    @property
    def joint_memory(self) -> bool:
        """Whether any memory enters the softmax."""
        return (self.use_local or self.use_external) and self.mode != "lm"

    @property
    def searches(self) -> bool:
        """Whether the neighbours of each token are needed."""
        return self.knnlm or (self.use_external and self.mode != "lm")


@dataclass
class DatastoreConfig(FairseqDataclass):  # type: ignore[misc]
    """The datastore that an evaluation searches, or writes."""

    dstore_filename: Optional[str] = field(
        default=None, metadata={"help": "prefix of the datastore to search"}
    )
    indexfile: Optional[str] = field(default=None, metadata={"help": "Faiss index of the datastore's keys"})
    probe: Optional[int] = field(
        default=None, metadata={"help": "lists of the index to visit; by default as the index was built"}
    )
    faiss_metric_type: Optional[ChoiceEnum(METRICS)] = field(  # type: ignore[valid-type]
        default=None, metadata={"help": "metric of the index; by default as the file beside it says"}
    )
    knn_sim_func: Optional[ChoiceEnum(SIMILARITIES)] = field(  # type: ignore[valid-type]
        default=None,
        metadata={
            "help": "compute the neighbours' scores from the keys: ip, l2 or cos; do_not_recomp_l2: take "
            "Faiss's approximate L2 distances; by default Faiss's scores, but exact L2 distances"
        },
    )
    no_load_keys: bool = field(default=False, metadata={"help": "do without the datastore's keys"})
    move_dstore_to_mem: bool = field(
        default=False, metadata={"help": "read the datastore's keys into memory"}
    )
    use_faiss_cpu: bool = field(default=False, metadata={"help": "search on the CPU"})
    check_recall: int = field(
        default=0, metadata={"help": "compare so many searches with exact search over all keys"}
    )
    dstore_fp16: bool = field(
        default=False,
        metadata={"help": "keys are written as float16; a datastore without manifest has float16 keys"},
    )
    dstore_size: Optional[int] = field(
        default=None,
        metadata={"help": "number of keys, if not all evaluated tokens; of a datastore without manifest"},
    )
    save_knnlm_dstore: bool = field(
        default=False, metadata={"help": "write a datastore: key and token of every evaluated token"}
    )
    dstore_mmap: Optional[str] = field(default=None, metadata={"help": "prefix of the datastore to write"})
    context_full_only: bool = field(
        default=False, metadata={"help": "leave tokens without a full context window out of the datastore"}
    )


@dataclass
class EvaluationConfig(LanguageModelingConfig, MemoryConfig, DatastoreConfig):  # type: ignore[misc]
    """All that the task reads of the flags of ``fairseq-eval-lm``."""

    eval_file: Optional[str] = field(
        default=None, metadata={"help": "write the result of fairseq-eval-lm to this JSON file"}
    )
    # Of other groups: for messages, and for the description of the result.
    context_window: int = II("eval_lm.context_window")
    gen_subset: str = II("dataset.gen_subset")
    path: Optional[str] = II("common_eval.path")
    post_process: Optional[str] = II("common_eval.post_process")
    fp16: bool = II("common.fp16")
    cpu: bool = II("common.cpu")

    def check(self) -> None:
        """Raises ValueError if flags contradict each other; makes the folder of the datastore to write."""
        _check_writing(self)
        given = [name for name in SEARCH_FLAGS if getattr(self, name) not in (None, False, 0)]
        searches = self.use_external or self.knnlm
        if given and not searches:
            names = " and ".join(map(flag, given))
            raise ValueError(f"{names}: for external memory, pass --use-external (or --knnlm) as well")
        if (self.dstore_size or self.dstore_fp16) and not (searches or self.save_knnlm_dstore):
            raise ValueError("--dstore-size and --dstore-fp16: no datastore is written or searched")
        if self.check_recall < 0:
            raise ValueError(f"--check-recall must be positive, not {self.check_recall}")
        super().check()


def _check_writing(config: EvaluationConfig) -> None:
    if not config.save_knnlm_dstore:
        if config.dstore_mmap or config.context_full_only:
            raise ValueError("--dstore-mmap and --context-full-only write: pass --save-knnlm-dstore as well")
    elif not config.dstore_mmap:
        raise ValueError("--save-knnlm-dstore needs --dstore-mmap PREFIX, where to write it")
    elif config.add_bos_token:
        raise ValueError("--save-knnlm-dstore: not with --add-bos-token, whose first token has no context")
    elif config.use_external or config.knnlm:
        raise ValueError("--save-knnlm-dstore: not with --use-external or --knnlm, write it first")
    else:
        check_writable("--dstore-mmap", f"{config.dstore_mmap}.json")


def part_of(config: Any, kind: type[Config]) -> Config:
    """The fields of a task's configuration that the dataclass ``kind`` declares, as plain values."""
    values = {entry.name: getattr(config, entry.name) for entry in fields(kind) if entry.name != "_name"}
    # Choices arrive as an enumeration of fairseq's, which JSON does not know.
    plain = {name: str(value) if isinstance(value, Enum) else value for name, value in values.items()}
    part: Config = kind(**plain)
    return part
