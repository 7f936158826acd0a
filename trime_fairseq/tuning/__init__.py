"""Tuning in one pass: the loss of every point of a grid of settings from one run of the model."""

from .axes import AXES, Axes, Point
from .request import Request, read_request
from .scorer import GridScorer

__all__ = ["AXES", "Axes", "GridScorer", "Point", "Request", "read_request"]
