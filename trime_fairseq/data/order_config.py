"""The flags that say in which order training batches come."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import FairseqDataclass
from omegaconf import II

from ..flags.bounds import Bounds


@dataclass
class PredefinedOrderConfig(FairseqDataclass):
    """The order of a file, and what such a file is made from: of language models and of translation."""

    predefined_batches: Optional[str] = field(
        default=None,
        metadata={
            "help": "JSON list of all training segments (in translation: sentences); batches are consecutive "
            "slices of it"
        },
    )
    output_segments_to_file: Optional[str] = field(
        default=None,
        metadata={
            "help": "write all training segments (in translation: target sentences) as text to this JSON "
            "file, and end without training; also --output-samples-to-file",
            "argparse_alias": "--output-samples-to-file",
        },
    )
    # Of other groups, which the order of batches depends on.
    train_subset: str = II("dataset.train_subset")
    max_tokens: Optional[int] = field(default=II("dataset.max_tokens"), metadata={"bounds": Bounds(1)})
    batch_size: Optional[int] = field(default=II("dataset.batch_size"), metadata={"bounds": Bounds(1)})
    distributed_world_size: int = II("distributed_training.distributed_world_size")


@dataclass
class OrderConfig(PredefinedOrderConfig):
    keep_order: bool = field(
        default=False,
        metadata={"help": "training batches of consecutive segments, in text order, unless --shuffle-steps"},
    )
    shuffle_steps: bool = field(
        default=False,
        metadata={
            "help": "with --keep-order: steps in random order, another in every epoch; the segments of a "
            "memory, which are all of one step, stay consecutive"
        },
    )
    train_mem_size: int = field(
        default=0,
        metadata={
            "help": "tokens of consecutive segments that are one memory of trime_long_loss, spread over "
            "N / --max-tokens devices",
            "bounds": Bounds(0),
        },
    )
