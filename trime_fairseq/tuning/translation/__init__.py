"""Tuning of a translation memory: by the loss of the references, then by BLEU.

::

    record = trime_fairseq.cli.translating.record_references(arguments, family, k=64)
    by_loss = tune_by_loss(record, Axes(("trime", "fix"), ks=(8, 16, 32, 64)))
    by_bleu = tune_by_bleu(by_loss, decode, most=6)     # decode(setting) gives a Quality
"""

from .decoding import Decoded, Quality, TunedByBleu, tune_by_bleu
from .record import ReferenceRecord
from .recorder import ReferenceRecorder
from .request import TranslationRequest, read_request
from .search import Tried, TunedByLoss, tune_by_loss
from .settings import PROPER_TYPES, Axes, Setting

__all__ = [
    "PROPER_TYPES",
    "Axes",
    "Decoded",
    "Quality",
    "ReferenceRecord",
    "ReferenceRecorder",
    "Setting",
    "TranslationRequest",
    "Tried",
    "TunedByBleu",
    "TunedByLoss",
    "read_request",
    "tune_by_bleu",
    "tune_by_loss",
]
