"""Grids that several tests of trime-tune take."""

from dataclasses import replace

from trime_fairseq.evaluation import MemoryConfig
from trime_fairseq.tuning import Axes

NONE = (None,)
KS, TEMPS, INTERP_TEMPS, LMBDAS = (1, 2, 5), (0.7, 1.3), (0.5, 2.0), (0.0, 0.25, 0.6)

EXTERNAL = MemoryConfig(use_external=True, softmax_temp=1.3, k=5)
CASES = {
    "joint": (Axes(TEMPS, NONE, KS, NONE, NONE), EXTERNAL),
    "interpolated": (
        Axes(TEMPS, NONE, KS, INTERP_TEMPS, LMBDAS),
        replace(EXTERNAL, use_interp=True, interp_temp=0.5, lmbda=0.6),
    ),
    "knnlm": (
        Axes(TEMPS, NONE, KS, NONE, LMBDAS),
        MemoryConfig(knnlm=True, softmax_temp=1.3, k=5, lmbda=0.25),
    ),
}

MODEL = "DATA --path model.pt --batch-size 8"
NEIGHBOR_FLAGS = "--use-local --use-external --dstore-filename d --indexfile i"
