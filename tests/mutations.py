"""Damages of files, by a generator of fixed seed."""

import random
import re

_NUMBERS = [b"-1", b"1e400", b"9" * 40, b'"5"', b"null", b"0.5", b"[[", b"true"]


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content with bits flipped, an end cut off, bytes more or cleared, or another number in its text."""
    damaged = bytearray(content)
    kind = draw.choice(["flip", "cut", "empty", "insert", "clear", "number"])
    place = draw.randrange(len(content))
    if kind == "flip":
        for _ in range(3):
            damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del damaged[place:]
    elif kind == "empty":
        damaged.clear()
    elif kind == "insert":
        damaged[place:place] = draw.randbytes(draw.randint(1, 50))
    elif kind == "clear":
        damaged[place : place + 16] = bytes(len(damaged[place : place + 16]))
    else:
        numbers = list(re.finditer(rb"\d+", content))
        if numbers:
            found = draw.choice(numbers)
            damaged[found.start() : found.end()] = draw.choice(_NUMBERS)
    return bytes(damaged)
