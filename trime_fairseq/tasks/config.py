"""The flags of ``--task trime_language_modeling``."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum
from fairseq.tasks.language_modeling import LanguageModelingConfig
from omegaconf import II

from ..datastore import METRICS, SIMILARITIES
from ..evaluation.config import MODES
from ..files import check_writable
from ..memory import IMPLEMENTATIONS
from ..models.representation import KEY_TYPES

# Those that would do nothing without a search.
SEARCH_FLAGS = (
    *("dstore_filename", "indexfile", "probe", "faiss_metric_type", "knn_sim_func", "no_load_keys"),
    *("move_dstore_to_mem", "use_faiss_cpu", "check_recall"),
)


@dataclass
class TrimeLanguageModelingConfig(LanguageModelingConfig):
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
    knn_keytype: ChoiceEnum(KEY_TYPES) = field(  # type: ignore[valid-type]
        default="last_ffn_input",
        metadata={"help": "representation that serves as query and as key of the memory"},
    )
    memory_impl: ChoiceEnum(IMPLEMENTATIONS) = field(  # type: ignore[valid-type]
        default="auto",
        metadata={
            "help": "how memories are computed: chunked (PyTorch), triton (CUDA), naive (all similarities at "
            "once, for comparisons); auto is chunked, and triton on GPUs where it is faster"
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
        default=None, metadata={"help": "weight of the memory softmax in --mode li"}
    )
    exact_tails: bool = field(
        default=False,
        metadata={
            "help": "adaptive softmax: charge the words at cutoff + 1 for their place in the tail, too; "
            "the published code and adaptive_loss do not (their padding index hides them)"
        },
    )
    use_external: bool = field(
        default=False, metadata={"help": "memory: the --k nearest keys of a datastore"}
    )
    dstore_filename: Optional[str] = field(
        default=None, metadata={"help": "prefix of the datastore to search"}
    )
    indexfile: Optional[str] = field(default=None, metadata={"help": "Faiss index of the datastore's keys"})
    k: int = field(default=1024, metadata={"help": "number of neighbours"})
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
    dstore_fp16: bool = field(
        default=False,
        metadata={"help": "keys are written as float16; a datastore without manifest has float16 keys"},
    )
    dstore_size: Optional[int] = field(
        default=None,
        metadata={"help": "number of keys, if not all evaluated tokens; of a datastore without manifest"},
    )
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
    check_recall: int = field(
        default=0, metadata={"help": "compare so many searches with exact search over all keys"}
    )
    save_knnlm_dstore: bool = field(
        default=False, metadata={"help": "write a datastore: key and token of every evaluated token"}
    )
    dstore_mmap: Optional[str] = field(default=None, metadata={"help": "prefix of the datastore to write"})
    context_full_only: bool = field(
        default=False, metadata={"help": "leave tokens without a full context window out of the datastore"}
    )
    eval_file: Optional[str] = field(
        default=None, metadata={"help": "write the result of fairseq-eval-lm to this JSON file"}
    )
    keep_order: bool = field(
        default=False,
        metadata={"help": "training batches of consecutive segments, in text order, never shuffled"},
    )
    train_mem_size: int = field(
        default=0,
        metadata={
            "help": "tokens of consecutive segments that are one memory of trime_long_loss, spread over "
            "N / --max-tokens devices"
        },
    )
    predefined_batches: Optional[str] = field(
        default=None,
        metadata={"help": "JSON list of all training segments; batches are consecutive slices of it"},
    )
    output_segments_to_file: Optional[str] = field(
        default=None,
        metadata={"help": "write all training segments as text to this JSON file, and end without training"},
    )
    # Of other groups, for messages, for the order of batches and for the JSON file.
    train_subset: str = II("dataset.train_subset")
    max_tokens: Optional[int] = II("dataset.max_tokens")
    batch_size: Optional[int] = II("dataset.batch_size")
    distributed_world_size: int = II("distributed_training.distributed_world_size")
    context_window: int = II("eval_lm.context_window")
    gen_subset: str = II("dataset.gen_subset")
    path: Optional[str] = II("common_eval.path")
    post_process: Optional[str] = II("common_eval.post_process")
    fp16: bool = II("common.fp16")
    cpu: bool = II("common.cpu")


def check_datastore_flags(flags: TrimeLanguageModelingConfig) -> None:
    """Raises ValueError if the flags of a datastore contradict each other; makes its folder."""
    searches = flags.use_external or flags.knnlm
    if not flags.save_knnlm_dstore:
        if flags.dstore_mmap or flags.context_full_only:
            raise ValueError("--dstore-mmap and --context-full-only write: pass --save-knnlm-dstore as well")
    elif not flags.dstore_mmap:
        raise ValueError("--save-knnlm-dstore needs --dstore-mmap PREFIX, where to write it")
    elif getattr(flags, "add_bos_token", False):
        raise ValueError("--save-knnlm-dstore: not with --add-bos-token, whose first token has no context")
    elif searches:
        raise ValueError("--save-knnlm-dstore: not with --use-external or --knnlm, write it first")
    else:
        check_writable("--dstore-mmap", f"{flags.dstore_mmap}.json")
    given = [name for name in SEARCH_FLAGS if getattr(flags, name) not in (None, False, 0)]
    if not searches and given:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{names}: for external memory, pass --use-external (or --knnlm) as well")
    if (flags.dstore_size or flags.dstore_fp16) and not (searches or flags.save_knnlm_dstore):
        raise ValueError("--dstore-size and --dstore-fp16: no datastore is written or searched")
    if flags.check_recall < 0:
        raise ValueError(f"--check-recall must be positive, not {flags.check_recall}")
