"""Architectures of the published models, reading checkpoints, and the tap that captures g(c)."""

from . import architectures, checkpoints
from .representation import KEY_TYPES, RepresentationTap

__all__ = ["KEY_TYPES", "RepresentationTap", "architectures", "checkpoints"]
