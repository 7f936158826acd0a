"""The flags of memories in translation."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum

from ..evaluation.datastore_config import DatastoreConfig
from ..flags.bounds import TEMPERATURE, Bounds

LAMBDA_TYPES = ("trime", "trime-published", "trime-normalized", "fix")


@dataclass
class TranslationMemoryConfig(DatastoreConfig):
    """Which datastore a translation searches, and how its neighbours join the model's distribution.

    How the distributions mix: :mod:`trime_fairseq.generation.mixture`.
    """

    use_knn_datastore: bool = field(
        default=False, metadata={"help": "memory: the --k nearest keys of a datastore"}
    )
    index_filename: Optional[str] = field(
        default=None, metadata={"help": "name of the Faiss index inside of the folder --dstore-filename"}
    )
    k: int = field(default=8, metadata={"help": "number of neighbours", "bounds": Bounds(1, 2**20)})
    knn_lambda_type: ChoiceEnum(LAMBDA_TYPES) = field(  # type: ignore[valid-type]
        default="trime",
        metadata={
            "help": "how neighbours join: trime (one softmax over tokens and neighbours, as in training), "
            "fix (kNN-MT: weight --knn-lambda-value), trime-published (the neighbours' share added whole: "
            "sums to more than 1), trime-normalized (the same, divided by its sum)"
        },
    )
    knn_lambda_value: float = field(
        default=0.5, metadata={"help": "weight of the neighbours with --knn-lambda-type fix, in [0, 1)"}
    )
    knn_temperature_value: float = field(
        default=10.0, metadata={"help": "temperature of the neighbours' scores", "bounds": TEMPERATURE}
    )
