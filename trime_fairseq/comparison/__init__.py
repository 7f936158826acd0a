"""Models and memories in one table: each row tuned alike on one text, and evaluated on another."""

from .arguments import read_arguments
from .memories import Memory, read_memory
from .request import Comparison, Model, Search, read_comparison
from .run import compare

__all__ = [
    "Comparison",
    "Memory",
    "Model",
    "Search",
    "compare",
    "read_arguments",
    "read_comparison",
    "read_memory",
]
