"""Tuning in one pass: the loss of every point of a grid of settings from one run of the model."""

from .axes import AXES, Axes, MemoryAxes, Point
from .families import axes_of, default_axes, flags_of, recording_config
from .mixture import mixture
from .record import Record
from .recording_scorer import RecordingScorer
from .request import Request, read_request
from .scorer import GridScorer
from .search import Setting, Tuned, tune

__all__ = [
    "AXES",
    "Axes",
    "GridScorer",
    "MemoryAxes",
    "Point",
    "Record",
    "RecordingScorer",
    "Request",
    "Setting",
    "Tuned",
    "axes_of",
    "default_axes",
    "flags_of",
    "mixture",
    "read_request",
    "recording_config",
    "tune",
]
