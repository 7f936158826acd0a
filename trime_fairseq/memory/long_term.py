"""Long-term memory: the last M evaluated tokens, in text order."""

from torch import Tensor


class LongTermMemory:
    """The newest M keys, as they were computed, and the tokens that followed them.

    :meth:`append` adds keys, :meth:`forget` drops the oldest; ``keys`` and ``tokens`` are what is held.

    The buffer is allocated once, at the first ``append``, with room for twice what the memory may hold. When
    it is full, what is kept moves to its front. So the cost per key does not depend on how much text has
    gone by.

    Args:
        size: number of keys kept, M >= 1.

    Raises:
        ValueError: if ``size`` is not positive.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a long-term memory needs a positive size, not {size}")
        self.size = size
        self._keys: Tensor | None = None
        self._tokens: Tensor | None = None
        self._begin = self._end = 0

    def __len__(self) -> int:
        return self._end - self._begin

    def append(self, keys: Tensor, tokens: Tensor) -> None:
        """Adds keys [n, d] and their tokens, int64 [n]; forgets nothing.

        With a :meth:`forget` after each call, the buffer grows only for a larger n than ever before."""
        count = keys.size(0)
        if self._tokens is None or self._end + count > self._tokens.size(0):
            self._make_room(keys, tokens)
        assert self._keys is not None
        assert self._tokens is not None
        self._keys[self._end : self._end + count] = keys
        self._tokens[self._end : self._end + count] = tokens
        self._end += count

    def forget(self, before: int = 0) -> None:
        """Keeps the newest ``size`` keys, and of those only the ones at index ``before`` or later."""
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

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        buffers = [buffer for buffer in (self._keys, self._tokens) if buffer is not None]
        return sum(buffer.numel() * buffer.element_size() for buffer in buffers)

    def _make_room(self, keys: Tensor, tokens: Tensor) -> None:
        """Moves what is held to the front of a buffer with room for the new keys and tokens."""
        kept, needed = len(self), len(self) + keys.size(0)
        old_keys, old_tokens = self._keys, self._tokens
        # Twice what is held after an append: then what moves and where to do not overlap.
        if old_tokens is None or 2 * needed > old_tokens.size(0):
            room = 2 * max(needed, self.size + keys.size(0))
            self._keys, self._tokens = keys.new_empty(room, keys.size(1)), tokens.new_empty(room)
        if old_keys is not None and old_tokens is not None and self._keys is not None:
            assert self._tokens is not None
            self._keys[:kept] = old_keys[self._begin : self._end]
            self._tokens[:kept] = old_tokens[self._begin : self._end]
        self._begin, self._end = 0, kept
