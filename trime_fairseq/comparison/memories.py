"""The memories of a row of the table, by their names in the field.

==================  ==========================================================================
``none``            the model alone
``local``           TRIME: the earlier tokens of the model's input
``local + long N``  and up to N tokens of the preceding text
``... + external``  and the nearest keys of a datastore, also interpolated as in kNN-LM
``cache``           continuous cache over the earlier tokens of the model's input
``cache N``         and over up to N tokens of the preceding text
``knn``             kNN-LM
``knn + cache N``   both, each with its weight in one mixture
==================  ==========================================================================
"""

from dataclasses import dataclass
from typing import Any

from ..evaluation.config import MemoryConfig
from ..flags.bounds import bounds_of

VOCABULARY = (
    "none, local, local + long N, external, local + external, local + long N + external, cache, cache N, "
    "knn, knn + cache, knn + cache N"
)
_PARTS = ("local", "long", "external", "knn", "cache")
_SIZED = {"long": "needed", "cache": "possible"}
# Parts that go together, in the order of their names.
UNIONS = {
    *((), ("local",), ("local", "long"), ("external",), ("local", "external"), ("local", "long", "external")),
    *(("cache",), ("knn",), ("knn", "cache")),
}


@dataclass(frozen=True)
class Memory:
    """The memories of one row.

    Attributes:
        parts: of ``local``, ``long``, ``external``, ``knn`` and ``cache``; none for the model alone.
        size: most tokens of the long-term memory.
    """

    parts: tuple[str, ...] = ()
    size: int = 0

    def __str__(self) -> str:
        sizes = {part: f" {self.size}" for part in _SIZED if self.size}
        return " + ".join(part + sizes.get(part, "") for part in self.parts) or "none"

    @property
    def searches(self) -> bool:
        """Whether it needs a datastore."""
        return "external" in self.parts or "knn" in self.parts

    @property
    def trained(self) -> bool:
        """Whether it enters the softmax, as in the training of TRIME; a baseline needs no training."""
        return bool(self.parts) and not {"knn", "cache"} & set(self.parts)

    def family(self, k: int, **keys: Any) -> MemoryConfig:
        """What is tuned for the row: memories and mode, without temperatures and weights.

        Args:
            k: most neighbours.
            keys: fields of :class:`KeyConfig`. Tails of an adaptive softmax are always charged, so that each
                row is a distribution.
        """
        cache = "cache" in self.parts
        return MemoryConfig(
            use_local=cache or "local" in self.parts,
            use_long=self.size > 0,
            mem_size=self.size,
            mode="li" if cache else "gn" if self.parts else "lm",
            use_external="external" in self.parts,
            use_interp="external" in self.parts,
            knnlm="knn" in self.parts,
            k=k if self.searches else MemoryConfig.k,
            **{**keys, "exact_tails": True},
        )


def read_memory(text: str) -> Memory:
    """The memories that a name means; spaces and the order of parts do not matter.

    Raises:
        ValueError: if it is none of :data:`VOCABULARY`.
    """
    found: dict[str, int] = {}
    for words in (part.split() for part in text.lower().split("+")):
        name, size = words[0] if words else "", 0
        if len(words) == 2 and name in _SIZED and words[1].isdecimal():
            size = _size(words[1], text)
        elif len(words) != 1 or _SIZED.get(name) == "needed":
            raise _unknown(text)
        if name in found or (len(words) == 2 and not size):
            raise _unknown(text)
        found[name] = size
    parts = tuple(part for part in _PARTS if part in found)
    if set(found) == {"none"}:
        return Memory()
    if len(parts) < len(found) or parts not in UNIONS:
        raise _unknown(text)
    return Memory(parts, sum(found.values()))


def _size(digits: str, text: str) -> int:
    bounds = bounds_of(MemoryConfig, "mem_size")
    # Python reads no numbers of thousands of digits.
    size = int(digits[:40])
    problem = bounds.problem(size) if bounds else None
    if problem:
        raise ValueError(f"{text.strip():.60}: the size {problem}")
    return size


def _unknown(text: str) -> ValueError:
    return ValueError(
        f"no such memory: {text.strip()!r}. Memories are {VOCABULARY} (N tokens, a positive integer)"
    )
