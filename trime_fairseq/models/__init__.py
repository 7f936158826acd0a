"""Architectures of the published models, and the tap that captures g(c) from any transformer_lm."""

from . import architectures
from .representation import KEY_TYPES, RepresentationTap

__all__ = ["KEY_TYPES", "RepresentationTap", "architectures"]
