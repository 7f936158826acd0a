"""Long-term memory: the last M evaluated tokens, in text order."""

from typing import Optional

from torch import Tensor


class LongTermMemory:
    """A first-in first-out memory of keys and the tokens that followed them.

    Keys are stored as they were computed. Appending copies the new keys only: the buffer has room for
    ``2 * size`` keys and more, and the newest ``size`` are moved to its front when it is full, so the
    cost per key does not depend on how much text has gone by.

    Args:
        size: number of keys kept, M >= 1.

    Raises:
        ValueError: if ``size`` is not positive.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a long-term memory needs a positive size, not {size}")
        self.size = size
        self._keys: Optional[Tensor] = None
        self._tokens: Optional[Tensor] = None
        self._begin = self._end = 0

    def __len__(self) -> int:
        return self._end - self._begin

    def append(self, keys: Tensor, tokens: Tensor) -> None:
        """Adds keys [n, d] and their tokens int64 [n] at the end; nothing is forgotten yet."""
        count = keys.size(0)
        if self._keys is None or self._tokens is None:
            room = 2 * self.size + count
            self._keys = keys.new_empty(room, keys.size(1))
            self._tokens = tokens.new_empty(room)
        elif self._end + count > self._tokens.size(0):
            self._move_to_front(len(self) + count)
        self._keys[self._end : self._end + count] = keys
        self._tokens[self._end : self._end + count] = tokens
        self._end += count

    def forget(self, before: int = 0) -> None:
        """Keeps the newest ``size`` keys, and of those only what stands at index ``before`` or later."""
        self._begin = max(self._begin + before, self._end - self.size)

    @property
    def keys(self) -> Tensor:
        """Oldest first, [len(self), d]; valid until the next ``append``."""
        assert self._keys is not None, "nothing was appended yet"
        return self._keys[self._begin : self._end]

    @property
    def tokens(self) -> Tensor:
        """Oldest first, int64 [len(self)]; valid until the next ``append``."""
        assert self._tokens is not None, "nothing was appended yet"
        return self._tokens[self._begin : self._end]

    def _move_to_front(self, room_needed: int) -> None:
        keys, tokens = self.keys.clone(), self.tokens.clone()
        assert self._keys is not None
        assert self._tokens is not None
        if room_needed > self._tokens.size(0):
            self._keys = keys.new_empty(2 * room_needed, keys.size(1))
            self._tokens = tokens.new_empty(2 * room_needed)
        self._keys[: len(keys)] = keys
        self._tokens[: len(keys)] = tokens
        self._begin, self._end = 0, len(keys)
