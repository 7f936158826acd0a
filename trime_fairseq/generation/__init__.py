"""How a decoder that generates uses memories: which distribution, from which datastore."""

from .config import TranslationMemoryConfig

__all__ = ["TranslationMemoryConfig"]
