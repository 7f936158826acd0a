"""How a decoder that generates uses memories: which distribution, from which datastore."""

from .attaching import attach_memories
from .config import TranslationMemoryConfig
from .memory import ModelMemory
from .mixture import LAMBDA_TYPES, Mixture

__all__ = ["LAMBDA_TYPES", "Mixture", "ModelMemory", "TranslationMemoryConfig", "attach_memories"]
