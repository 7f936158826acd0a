"""Flags of criterions and task alike: which representation is the key, and how memories are computed."""

import os
from dataclasses import dataclass, field

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from ..memory import IMPLEMENTATIONS
from .representation import KEY_TYPES


@dataclass
class KeyConfig(FairseqDataclass):  # type: ignore[misc]
    knn_keytype: ChoiceEnum(KEY_TYPES) = field(  # type: ignore[valid-type]
        default="last_ffn_input",
        metadata={"help": "representation that serves as query and as key of the memory"},
    )
    exact_tails: bool = field(
        default=False,
        metadata={
            "help": "adaptive softmax: charge the words at cutoff + 1 for their place in the tail, too; "
            "the published code and adaptive_loss do not (their padding index hides them)"
        },
    )
    memory_impl: ChoiceEnum(IMPLEMENTATIONS) = field(  # type: ignore[valid-type]
        default="auto",
        metadata={
            "help": "how memories are computed: chunked (PyTorch), triton (CUDA), naive (all similarities at "
            "once, for comparisons); auto is chunked, and triton on GPUs where it is faster"
        },
    )


def refuse_triton_on_cpu(memory_impl: str, has_gpu: bool) -> None:
    """Raises ValueError where the kernels that ``--memory-impl`` asks for would fail at the first batch."""
    interprets = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
    if memory_impl == "triton" and not (has_gpu or interprets):
        raise ValueError("--memory-impl triton needs a GPU, and none is used here: leave it out")
