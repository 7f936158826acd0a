"""Measures the rows of one checkpoint: a pass over the tuning subset, one over the test subset, arithmetic."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..data.provenance import data_folders, text_files_hash
from ..evaluation import EvaluationResult, MemoryConfig
from ..files import file_hash, text_hash
from ..tuning import MemoryAxes, Record, Tuned, axes_of, default_axes, flags_of, mixture, tune
from .contributions import occurs, shares
from .evaluation_flags import key_settings, store_files
from .frequencies import BINS, bins_of
from .hardware import hardware
from .memories import Memory
from .request import Comparison, Model
from .result import CheckpointResult, Identity, RowResult, SizePoint
from .result import Identity as _Identity

# Arguments of ``fairseq-eval-lm``, families of settings, values for which to score: a record of the text.
Recorder = Callable[
    [Sequence[str], Sequence[MemoryConfig], MemoryAxes], tuple[Record, EvaluationResult]
]
_NATS = float(np.log(2))
