"""The flags of the datastore that an evaluation searches, or writes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from ..datastore import METRICS, SIMILARITIES, DatastoreError
from ..datastore.index.config import PROBES, ROWS
from ..flags import name_flags
from ..flags.bounds import Bounds

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


@contextmanager
def flags_named() -> Iterator[None]:
    """Errors of the datastore room name the flags of an evaluation, not their own arguments."""
    try:
        yield
    except DatastoreError as error:
        raise DatastoreError(name_flags(str(error), **_FLAGS)) from error


def check_index_name(where: str, path: str) -> None:
    """Raises ValueError, which begins with ``where``, for an index that was named without its metric:
    ``--faiss_index knn.index`` is the file ``knn.index.ip``."""
    there = [f"{path}.{metric}" for metric in METRICS if os.path.isfile(f"{path}.{metric}")]
    if there and not os.path.exists(path):
        fix = "pass that" if len(there) == 1 else "pass one of them"
        raise ValueError(f"{where} {path} does not exist, but {' and '.join(there)}: {fix}")


@dataclass
class DatastoreConfig(FairseqDataclass):  # type: ignore[misc]
    """The datastore that an evaluation searches, or writes."""

    dstore_filename: Optional[str] = field(
        default=None, metadata={"help": "prefix of the datastore to search, or its folder"}
    )
    indexfile: Optional[str] = field(default=None, metadata={"help": "Faiss index of the datastore's keys"})
    probe: Optional[int] = field(
        default=None,
        metadata={
            "help": "lists of the index to visit; by default as the index was built",
            "bounds": PROBES,
        },
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
        default=0,
        metadata={
            "help": "compare so many searches with exact search over all keys",
            "bounds": Bounds(0, 2**31 - 1),
        },
    )
    dstore_fp16: bool = field(
        default=False,
        metadata={"help": "keys are written as float16; a datastore without manifest has float16 keys"},
    )
    dstore_size: Optional[int] = field(
        default=None,
        metadata={
            "help": "number of keys, if not all target tokens; of a datastore without manifest",
            "bounds": ROWS,
        },
    )
    save_knnlm_dstore: bool = field(
        default=False, metadata={"help": "write a datastore: key and token of every target token"}
    )
    dstore_mmap: Optional[str] = field(
        default=None, metadata={"help": "prefix of the datastore to write, or its folder"}
    )
