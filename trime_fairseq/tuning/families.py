"""Families of settings: which memories and which mode, with everything else to be tuned.

A family is a :class:`MemoryConfig` of which only some fields are read:

==================================================  ====================================================
``mode``, ``knnlm``, ``use_interp``                 how distributions mix
``use_local``, ``use_long``, ``use_external``       which memories there are
``mem_size``, ``k``                                 the most tokens and neighbours
``lmbda``, ``cache_lmbda``                          None: the weight is solved for; a number stays
``exact_tails``, ``knn_keytype``, ``memory_impl``   as for an evaluation
==================================================  ====================================================

Temperatures are not read: a record is made for all temperatures of its axes.
"""

from collections.abc import Sequence
from dataclasses import fields, replace

from ..evaluation.axes import MemoryAxes
from ..evaluation.config import MemoryConfig
from ..flags import flag

# Temperatures in steps of a quarter of an octave. A factor of two is exact.
_QUARTERS = (1.0, 1.19, 1.41, 1.68)
_TEMPERATURES = tuple(quarter * 2.0**octave for octave in range(-2, 5) for quarter in _QUARTERS) + (32.0,)
# Scores of neighbours are squared distances, or inner products not divided by the root of the dimension.
_INTERP_TEMPS = tuple(quarter * 2.0**octave for octave in range(-1, 11) for quarter in (1.0, 1.41)) + (2048.0,)
# The long-term memory's sizes begin here: a smaller one is a part of a segment.
_SMALLEST_MEMORY = 64


def check_families(families: Sequence[MemoryConfig]) -> None:
    """Raises ValueError if no single pass can serve these families, or one of them contradicts itself."""
    for family in families:
        replace(family, **{name: getattr(family, name) or 0.0 for name in family.weight_names}).check()
    for name in ("knn_keytype", "memory_impl"):
        if len({getattr(family, name) for family in families}) > 1:
            raise ValueError(f"settings that differ in {flag(name)} need a pass each")
    if len({family.charges_tails for family in families}) > 1:
        raise ValueError(
            "an adaptive softmax is scored in two ways, with and without --exact-tails: pass it to all settings"
        )


def recording_config(families: Sequence[MemoryConfig]) -> MemoryConfig:
    """The one setting whose evaluation sees exactly the memories that some of the families need.

    It has the largest sizes and weights of 0, and is valid by itself. Its own loss is not used.

    Raises:
        ValueError: see :func:`check_families`.
    """
    check_families(families)
    first = families[0]
    sizes = [family.mem_size for family in families if family.use_long and family.joint_memory]
    ks = [family.k for family in families if family.searches]
    external = any(family.use_external and family.joint_memory for family in families)
    alone = any("lmbda" in family.weight_names for family in families)
    local = any(family.use_local and family.joint_memory for family in families)
    knnlm = alone and not external
    config = MemoryConfig(
        knn_keytype=first.knn_keytype,
        memory_impl=first.memory_impl,
        exact_tails=first.exact_tails,
        use_local=local,
        use_long=max(sizes, default=0) > 0,
        mem_size=max(sizes, default=0),
        use_external=external,
        mode="li" if knnlm and local else "gn",
        knnlm=knnlm,
        use_interp=alone and external,
        lmbda=0.0 if alone else None,
        cache_lmbda=0.0 if knnlm and local else None,
    )
    return replace(config, k=max(ks)) if ks else config


def default_axes(families: Sequence[MemoryConfig]) -> MemoryAxes:
    """Wide axes: geometric temperatures; powers of two up to the largest ``mem_size``, each ``mem_size`` itself
    and 0; the same of ``k``, from 1. Empty where no family needs an axis."""
    sizes = [family.mem_size for family in families if family.use_long and family.joint_memory]
    ks = [family.k for family in families if family.searches]
    return MemoryAxes(
        _TEMPERATURES if any(family.joint_memory for family in families) else (),
        tuple(sorted({0, *_powers(_SMALLEST_MEMORY, sizes)})) if sizes else (),
        _powers(1, ks),
        _INTERP_TEMPS if any("lmbda" in family.weight_names for family in families) else (),
    )


def _powers(first: int, limits: Sequence[int]) -> tuple[int, ...]:
    """Powers of two from ``first`` to the largest limit, and the limits themselves."""
    largest = max(limits, default=0)
    powers = {first << step for step in range(largest.bit_length()) if first << step <= largest}
    return tuple(sorted({*powers, *limits}))


def flags_of(config: MemoryConfig) -> list[str]:
    """The arguments of ``fairseq-eval-lm`` that set the memories as ``config`` does; defaults are left out."""
    words: list[str] = []
    default = MemoryConfig()
    for entry in fields(MemoryConfig):
        value = getattr(config, entry.name)
        if entry.name == "_name" or value == getattr(default, entry.name):
            continue
        words += [flag(entry.name)] if value is True else [flag(entry.name), str(value)]
    return words
