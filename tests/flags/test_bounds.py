"""Bounds of flags, where they are declared."""

import math
from dataclasses import dataclass, field

import pytest

from trime_fairseq.flags.bounds import TEMPERATURE, Bounds, bounds_of, check_bounds


@dataclass
class Config:
    mem_size: int | None = field(default=0, metadata={"bounds": Bounds(0, 2**40)})
    ratio: float = field(default=0.5, metadata={"bounds": Bounds(0.25, 1.0)})
    unbounded: int = -1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (Config(-1), "--mem-size must not be negative: -1"),
        (Config(2**41), "--mem-size must be at most 1,099,511,627,776, not 2199023255552"),
        (Config(ratio=0.1), "--ratio must be at least 0.25, not 0.1"),
        (Config(ratio=-1.0), "--ratio must be positive, not -1.0"),
        (Config(ratio=math.nan), "--ratio must be positive, not nan"),
        (Config(ratio=math.inf), "--ratio must be at most 1, not inf"),
    ],
)
def test_refused(values, message):
    with pytest.raises(ValueError, match="^" + message):
        check_bounds(Config, values)


def test_accepted():
    for values in (Config(), Config(2**40, 0.25), Config(None, 1.0), Config(unbounded=-9)):
        check_bounds(Config, values)
    # What no command has filled in is no number; what is not there at all is not checked.
    check_bounds(Config, Config("${common.mem_size}"))
    check_bounds(Config, object())


@dataclass
class Repeats:
    mem_size: int = 0


@dataclass
class Both(Repeats, Config):
    """Of two bases with a field of one name the first counts, but for its bounds."""


def test_bounds_of_another_base():
    assert not Both.__dataclass_fields__["mem_size"].metadata
    with pytest.raises(ValueError, match="--mem-size must not be negative: -1"):
        check_bounds(Both, Both(mem_size=-1))


def test_bounds_of_a_field():
    assert bounds_of(Config, "mem_size") == Bounds(0, 2**40)
    assert bounds_of(Config, "unbounded") is bounds_of(Config, "missing") is None
    assert TEMPERATURE.problem(1.0) is None
