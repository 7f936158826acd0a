"""The flags of an evaluation: which memories, which datastore, and what contradicts what."""

import os
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Optional, TypeVar

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks.language_modeling import LanguageModelingConfig
from omegaconf import II

from ..datastore.layout import manifest_path
from ..files import check_writable
from ..flags import flag
from ..flags.bounds import SEED, TEMPERATURE, Bounds, check_bounds
from ..models.config import KeyConfig
from .datastore_config import DatastoreConfig, check_index_name
from .rescue import refuse_other_content

MODES = ("gn", "lm", "li")
# With more, the scores of one batch are gigabytes.
MOST_NEIGHBORS = 2**20
# Flags that would do nothing without a search.
SEARCH_FLAGS = (
    *("dstore_filename", "indexfile", "probe", "faiss_metric_type", "knn_sim_func", "no_load_keys"),
    *("move_dstore_to_mem", "use_faiss_cpu", "check_recall"),
)

Config = TypeVar("Config", bound=FairseqDataclass)


@dataclass
class MemoryConfig(KeyConfig):
    """Which memories an evaluation uses, and how they are combined with the model's own distribution.

    The modes: ``gn`` normalises over tokens and memories together (TRIME), ``lm`` is the plain model, ``li``
    interpolates the softmax over memories with that over tokens (continuous cache). How the distributions
    mix: :mod:`trime_fairseq.evaluation.mixture`.
    """

    use_local: bool = field(
        default=False,
        metadata={"help": "memory: earlier tokens of the model input, context window included"},
    )
    use_long: bool = field(
        default=False,
        metadata={"help": "memory: the last --mem-size evaluated tokens before the sample"},
    )
    mem_size: int = field(
        default=0, metadata={"help": "size of the long-term memory, in tokens", "bounds": Bounds(0, 2**40)}
    )
    softmax_temp: Optional[float] = field(
        default=None,
        metadata={
            "help": "temperature of the similarities to memories; by default that of the checkpoint's "
            "training where it says so (with --mode gn), else 1",
            "bounds": TEMPERATURE,
        },
    )
    mode: ChoiceEnum(MODES) = field(  # type: ignore[valid-type]
        default="gn",
        metadata={
            "help": "gn: joint softmax over tokens and memories; lm: the plain model; "
            "li: linear interpolation of memory softmax and token softmax"
        },
    )
    cache_lmbda: Optional[float] = field(
        default=None, metadata={"help": "weight of the memory softmax in --mode li, in [0, 1)"}
    )
    use_external: bool = field(
        default=False, metadata={"help": "memory: the --k nearest keys of a datastore"}
    )
    k: int = field(
        default=1024, metadata={"help": "number of neighbours", "bounds": Bounds(1, MOST_NEIGHBORS)}
    )
    use_interp: bool = field(
        default=False, metadata={"help": "interpolate with the distribution of the neighbours alone"}
    )
    interp_temp: float = field(
        default=1.0,
        metadata={"help": "temperature of the neighbours' distribution", "bounds": TEMPERATURE},
    )
    lmbda: Optional[float] = field(
        default=None, metadata={"help": "weight of the neighbours' distribution, in [0, 1)"}
    )
    knnlm: bool = field(
        default=False,
        metadata={
            "help": "plain kNN-LM: interpolate the plain model, temperature --softmax-temp; with --mode li "
            "also with the memory softmax, and the neighbours' temperature is --interp-temp"
        },
    )

    def check(self) -> None:
        """Raises ValueError, naming the flag and the fix, if the settings contradict each other."""
        check_bounds(type(self), self)
        if self.use_long and not self.use_local:
            raise ValueError("--use-long adds to the local memory: pass --use-local as well")
        if self.use_long and self.mem_size == 0:
            raise ValueError("--use-long needs --mem-size N, the number of preceding tokens to keep")
        if self.mem_size > 0 and not self.use_long:
            raise ValueError("--mem-size is the size of the long-term memory: pass --use-long as well")
        if self.knnlm:
            self._check_knnlm()
        if self.use_interp and not self.use_external:
            raise ValueError("--use-interp interpolates with the neighbours: pass --use-external as well")
        if self.use_interp and self.mode != "gn":
            raise ValueError(f"--use-interp interpolates with --mode gn, not {self.mode}")
        if self.mode == "li" and not (self.use_local or self.use_external):
            raise ValueError("--mode li interpolates with a memory: pass --use-local as well")
        self._check_weights()

    def _check_knnlm(self) -> None:
        if self.use_external or self.use_interp:
            raise ValueError("--knnlm searches by itself: leave out --use-external and --use-interp")
        if self.mode == "lm":
            raise ValueError("--knnlm is no --mode lm, the model without any memory: leave one of them out")
        if self.mode == "gn" and self.use_local:
            raise ValueError(
                "--knnlm is the plain kNN-LM: pass --mode li to interpolate with --use-local as well, or "
                "leave --use-local out"
            )
        if self.mode == "gn" and self.interp_temp != 1.0:
            raise ValueError(
                "--knnlm takes its temperature from --softmax-temp, not --interp-temp (unless with --mode li)"
            )

    def _check_weights(self) -> None:
        needed = self.weight_names
        if self.cache_lmbda is not None and "cache_lmbda" not in needed:
            raise ValueError("--cache-lmbda is the weight of --mode li: pass --mode li as well")
        if "lmbda" not in needed and (self.lmbda is not None or self.interp_temp != 1.0):
            raise ValueError(
                "--lmbda and --interp-temp are for --use-interp: pass it as well (or --knnlm instead of "
                "--use-external)"
            )
        whose = {"cache_lmbda": "the memory softmax", "lmbda": "the neighbours' distribution"}
        for name in needed:
            value = getattr(self, name)
            if value is None or not 0.0 <= value <= 1.0:
                given = "" if value is None else f", not {value}"
                raise ValueError(f"{flag(name)}, the weight of {whose[name]}, is needed, in [0, 1){given}")
        given = " and ".join(f"{flag(name)} {getattr(self, name)}" for name in needed)
        verb = "leaves" if len(needed) == 1 else "leave"
        if sum(self.weights) > 1.0:
            raise ValueError(f"{given} exceed 1 together: they are weights of one mixture, lower them")
        if needed and sum(self.weights) == 1.0:
            raise ValueError(
                f"{given} {verb} the model no weight, so words that no memory predicts would have "
                "probability 0: pass less than 1"
            )

    def with_softmax_temp(self: Config, trained: float | None) -> Config:
        """A copy whose ``softmax_temp`` is set.

        Args:
            trained: the temperature that the checkpoint was trained with, None where it does not say. It is
                for the joint softmax only: similarities mean nothing to a model that was trained without.
        """
        config: Any = self
        value = config.softmax_temp
        if value is None:
            joint = config.mode == "gn" and not config.knnlm
            value = trained if joint and trained is not None else 1.0
        return replace(self, softmax_temp=value)

    @property
    def joint_temp(self) -> float:
        """Temperature of the softmax that memories are in; 1 by default."""
        return 1.0 if self.softmax_temp is None else self.softmax_temp

    @property
    def neighbor_temp(self) -> float:
        """Temperature of the neighbours' own distribution: ``--softmax-temp`` if that is all there is."""
        return self.joint_temp if self.softmax_temp_is_neighbors else self.interp_temp

    @property
    def softmax_temp_is_neighbors(self) -> bool:
        """Whether ``softmax_temp`` is the temperature of the neighbours' own distribution."""
        return self.knnlm and self.mode != "li"

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The settings that are weights of the mixture, beside what is left to the model."""
        in_use = {"cache_lmbda": self.mode == "li", "lmbda": self.knnlm or self.use_interp}
        return tuple(name for name, used in in_use.items() if used)

    @property
    def weights(self) -> tuple[float, ...]:
        """Their values."""
        return tuple(getattr(self, name) for name in self.weight_names)

    @property
    def joint_memory(self) -> bool:
        """Whether memories enter a softmax by their similarities: with the tokens, or alone (``li``)."""
        return (self.use_local or self.use_external) and self.mode != "lm"

    @property
    def charges_tails(self) -> bool:
        """Whether every word of an adaptive softmax is charged for its tail: as published, not with memories
        in the softmax, unless ``exact_tails`` asks for it."""
        return self.exact_tails or not (self.joint_memory and self.mode == "gn")

    @property
    def searches(self) -> bool:
        """Whether the neighbours of each token are needed."""
        return self.knnlm or (self.use_external and self.mode != "lm")


@dataclass
class EvaluationConfig(LanguageModelingConfig, MemoryConfig, DatastoreConfig):  # type: ignore[misc]
    """All that the task reads of the flags of ``fairseq-eval-lm``."""

    context_full_only: bool = field(
        default=False, metadata={"help": "leave tokens without a full context window out of the datastore"}
    )
    eval_file: Optional[str] = field(
        default=None, metadata={"help": "write the result of fairseq-eval-lm to this JSON file"}
    )
    # Of other groups: for messages, and for the description of the result.
    context_window: int = field(default=II("eval_lm.context_window"), metadata={"bounds": Bounds(0)})
    gen_subset: str = II("dataset.gen_subset")
    path: Optional[str] = II("common_eval.path")
    post_process: Optional[str] = II("common_eval.post_process")
    fp16: bool = II("common.fp16")
    cpu: bool = II("common.cpu")
    # Of other groups too: fairseq takes any number.
    seed: int = field(default=II("common.seed"), metadata={"bounds": SEED})
    num_shards: int = field(default=II("dataset.num_shards"), metadata={"bounds": Bounds(1)})
    shard_id: int = field(default=II("dataset.shard_id"), metadata={"bounds": Bounds(0)})
    num_workers: int = field(default=II("dataset.num_workers"), metadata={"bounds": Bounds(0, 1024)})
    softmax_batch: int = field(default=II("eval_lm.softmax_batch"), metadata={"bounds": Bounds(0)})

    @property
    def needs_keys(self) -> bool:
        """Whether the model's keys are used: by memories, a search or a datastore."""
        return self.joint_memory or self.searches or self.save_knnlm_dstore

    def check(self) -> None:
        """Raises ValueError if flags contradict each other; makes the folders of the files to write."""
        check_bounds(type(self), self)
        check_shards(self)
        _check_writing(self)
        if self.eval_file:
            check_writable("--eval-file", self.eval_file)
            refuse_other_content("--eval-file", self.eval_file)
            if self.dstore_mmap and os.path.realpath(self.eval_file) == os.path.realpath(
                manifest_path(self.dstore_mmap)
            ):
                raise ValueError(
                    f"--eval-file {self.eval_file} is the manifest of --dstore-mmap: choose another name"
                )
        given = [name for name in SEARCH_FLAGS if getattr(self, name) not in (None, False, 0)]
        searches = self.use_external or self.knnlm
        if given and not searches:
            names = " and ".join(map(flag, given))
            raise ValueError(f"{names}: for external memory, pass --use-external (or --knnlm) as well")
        if (self.dstore_size or self.dstore_fp16) and not (searches or self.save_knnlm_dstore):
            raise ValueError("--dstore-size and --dstore-fp16: no datastore is written or searched")
        super().check()
        if searches and self.indexfile:
            check_index_name("--indexfile", self.indexfile)


def check_shards(config: Any) -> None:
    """Raises ValueError if ``--shard-id`` is none of ``--num-shards``."""
    if not isinstance(config.num_shards, int) or not isinstance(config.shard_id, int):
        return
    if config.shard_id >= config.num_shards:
        raise ValueError(
            f"--shard-id {config.shard_id} is none of --num-shards {config.num_shards}: they have the "
            f"numbers 0 to {config.num_shards - 1}"
        )


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
        check_writable("--dstore-mmap", manifest_path(config.dstore_mmap))


def part_of(config: Any, kind: type[Config]) -> Config:
    """The fields of a task's configuration that the dataclass ``kind`` declares, as plain values."""
    values = {entry.name: getattr(config, entry.name) for entry in fields(kind) if entry.name != "_name"}
    # Choices arrive as an enumeration of fairseq's, which JSON does not know.
    plain = {name: str(value) if isinstance(value, Enum) else value for name, value in values.items()}
    part: Config = kind(**plain)
    return part
