"""The flags of ``--task trime_language_modeling``."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum
from fairseq.tasks.language_modeling import LanguageModelingConfig
from omegaconf import II

from ..models.representation import KEY_TYPES
from ..settings import MODES


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
