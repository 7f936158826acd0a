"""Damage to files: what disks, editors, other programs and ill will do to them."""

import copy
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Damage = Callable[[bytes, random.Random], bytes]

# Values that a field of JSON should not have, most of them.
_ODD: list[Any] = [
    None,
    True,
    "",
    "1",
    "9" * 40,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**30,
    0.5,
    1e308,
    float("nan"),
    [],
    {},
]


def flip(path: Any, offset: int | None = None, bit: int = 0x10) -> None:
    """One bit of a file turned: of the byte at ``offset``, by default of the middle one."""
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2 if offset is None else offset] ^= bit
    Path(path).write_bytes(content)


def flip_bits(content: bytes, draw: random.Random) -> bytes:
    """Three bits turned."""
    damaged = bytearray(content)
    for _ in range(3):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def cut_off(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.choice([0, 1, len(content) // 2, len(content) - 1, draw.randrange(len(content))])]


def extend(content: bytes, draw: random.Random) -> bytes:
    return content + draw.randbytes(draw.choice([1, 8, 64, 5000]))


def clear(content: bytes, draw: random.Random) -> bytes:
    """A stretch of zeros, as a disk leaves it that lost a block."""
    begin = draw.randrange(len(content))
    end = min(len(content), begin + draw.choice([4, 64, 4096]))
    return content[:begin] + bytes(end - begin) + content[end:]


def scramble(content: bytes, draw: random.Random) -> bytes:
    """A stretch of random bytes."""
    begin = draw.randrange(len(content))
    end = min(len(content), begin + draw.choice([4, 64, 4096]))
    return content[:begin] + draw.randbytes(end - begin) + content[end:]


def replace(content: bytes, draw: random.Random) -> bytes:
    """Another file altogether."""
    return draw.choice([b"", b"no such thing\n", b"\x80\x04N.", bytes(len(content)), draw.randbytes(300)])


def drop_middle(content: bytes, draw: random.Random) -> bytes:
    begin = draw.randrange(len(content))
    return content[:begin] + content[begin + draw.choice([1, 8, 512]) :]


def large_number(content: bytes, draw: random.Random) -> bytes:
    """The largest number where a header may hold a size."""
    begin = draw.randrange(min(len(content), 256))
    return content[:begin] + draw.choice([b"\xff", b"\x7f"]) * 8 + content[begin + 8 :]


def change_field(content: bytes, draw: random.Random) -> bytes:
    """A field of JSON with another value, or another type."""
    document = json.loads(content)
    place, key = _place(document, draw)
    place[key] = copy.deepcopy(draw.choice(_ODD))
    return json.dumps(document).encode()


def nudge_field(content: bytes, draw: random.Random) -> bytes:
    """A number of JSON that is a little off; a text with one letter changed."""
    document = json.loads(content)
    for _ in range(20):
        place, key = _place(document, draw)
        value = place[key]
        if isinstance(value, bool):
            place[key] = not value
        elif isinstance(value, int | float):
            place[key] = value + draw.choice([-1, 1])
        elif isinstance(value, str) and value:
            at = draw.randrange(len(value))
            place[key] = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
        else:
            continue
        break
    return json.dumps(document).encode()


def remove_field(content: bytes, draw: random.Random) -> bytes:
    document = json.loads(content)
    place, key = _place(document, draw)
    del place[key]
    return json.dumps(document).encode()


def nest(content: bytes, draw: random.Random) -> bytes:
    """JSON in a hundred thousand brackets."""
    return b"[" * 100_000 + content + b"]" * 100_000


def change_array(content: bytes, draw: random.Random) -> bytes:
    """An array of an .npz file with another shape, type or values."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    name = draw.choice(sorted(name for name, array in arrays.items() if array.ndim))
    array = arrays[name]
    arrays[name] = draw.choice(
        [
            array[:1],
            array[:-1],
            array.T,
            array.astype("float64"),
            array.astype("int64") + (1 << 32),
            array.astype(str),
            array - 7,
            np.array(3),
            np.array([{"a": 1}], dtype=object),
            np.full_like(array, -1),
        ]
    )
    if draw.random() < 0.2:
        del arrays[name]
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()


def _place(document: Any, draw: random.Random) -> tuple[Any, Any]:
    """Where a value stands: its list or dictionary, and its key."""
    place = document
    while True:
        key = draw.choice(sorted(place)) if isinstance(place, dict) else draw.randrange(len(place))
        if not isinstance(place[key], dict | list) or not place[key] or draw.random() < 0.2:
            return place, key
        place = place[key]


BYTES: list[Damage] = [
    flip_bits,
    flip_bits,
    cut_off,
    extend,
    clear,
    scramble,
    replace,
    drop_middle,
    large_number,
]
JSON: list[Damage] = [change_field, change_field, nudge_field, nudge_field, remove_field, nest]


def damage(name: str, content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """The content of the file ``name``, damaged, and the name of the damage. Never what it was."""
    kinds = BYTES
    if name.endswith((".json", ".info")):
        kinds = [*JSON, *JSON, *BYTES]
    if name.endswith(".npz"):
        kinds = [change_array] * 6 + BYTES
    while True:
        kind = draw.choice(kinds)
        damaged = kind(content, draw)
        if damaged != content:
            return kind.__name__, damaged
