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

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from ..evaluation.axes import MemoryAxes
from ..evaluation.config import MemoryConfig
from ..flags import flag

# Temperatures in steps of an eighth of an octave where models have their best, and wider beyond.
_EIGHTHS = (1.0, 1.09, 1.19, 1.3, 1.41, 1.54, 1.68, 1.83)
_TEMPERATURES = (
    *(0.25, 0.3, 0.35, 0.42),
    *(eighth * octave for octave in (0.5, 1.0, 2.0) for eighth in _EIGHTHS),
    *(4.0, 5.6, 8.0, 11.2, 16.0, 22.4, 32.0),
)
# Scores of neighbours are squared distances, or inner products that are not divided by sqrt(d).
_INTERP_TEMPS = tuple(
    quarter * 2.0**octave for octave in range(-1, 11) for quarter in (1.0, 1.19, 1.41, 1.68)
) + (2048.0,)
# The long-term memory's sizes begin here: a smaller one is a part of a segment.
_SMALLEST_MEMORY = 64


def check_families(families: Sequence[MemoryConfig]) -> None:
    """Raises ValueError if no single pass can serve these families, or one of them contradicts itself."""
    for family in families:
        weights: dict[str, Any] = {name: getattr(family, name) or 0.0 for name in family.weight_names}
        replace(family, **weights).check()
    for name in ("knn_keytype", "memory_impl"):
        if len({getattr(family, name) for family in families}) > 1:
            raise ValueError(f"settings that differ in {flag(name)} need a pass each")
    if len({family.charges_tails for family in families}) > 1:
        raise ValueError(
            "some settings charge the tails of an adaptive softmax and some do not: pass --exact-tails to all"
        )


def recording_config(families: Sequence[MemoryConfig], axes: MemoryAxes) -> MemoryConfig:
    """The one setting whose evaluation sees exactly the memories that some of the families need.

    It has the largest sizes of the axes and weights of 0, and is valid by itself. Its own loss is not used.

    Raises:
        ValueError: see :func:`check_families`; and if the axes have no value where a family needs one.
    """
    check_families(families)
    needed = MemoryAxes.of(families)
    missing = [name for name, some, values in zip(axes._fields, needed, axes) if some and not values]
    if missing:
        raise ValueError(f"the axes have no {' and no '.join(missing)}, and some setting needs them")
    first = families[0]
    joint = [family for family in families if family.joint_memory]
    external = any(family.use_external for family in joint)
    local = any(family.use_local for family in joint)
    knnlm = bool(needed.interp_temps) and not external
    size = max(axes.mem_sizes) if needed.mem_sizes else 0
    config = MemoryConfig(
        knn_keytype=first.knn_keytype,
        memory_impl=first.memory_impl,
        exact_tails=first.charges_tails,
        use_local=local,
        use_long=size > 0,
        mem_size=size,
        softmax_temp=1.0,
        use_external=external,
        mode="lm" if not (joint or knnlm) else "li" if knnlm and local else "gn",
        knnlm=knnlm,
        use_interp=bool(needed.interp_temps) and external,
        lmbda=0.0 if needed.interp_temps else None,
        cache_lmbda=0.0 if knnlm and local else None,
    )
    return replace(config, k=max(axes.ks)) if needed.ks else config


def default_axes(families: Sequence[MemoryConfig]) -> MemoryAxes:
    """Wide axes: geometric temperatures; powers of two up to the largest ``mem_size``, each ``mem_size``
    itself and 0; the same of ``k``, from 1. Empty where no family needs an axis."""
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


def flags_of(config: Any) -> list[str]:
    """The arguments of fairseq's command that set the flags of a dataclass, such as :class:`MemoryConfig`, as
    ``config`` does, without defaults."""
    words: list[str] = []
    default = type(config)()
    for entry in fields(config):
        value = getattr(config, entry.name)
        if entry.name == "_name" or value == getattr(default, entry.name):
            continue
        words += [flag(entry.name)] if value is True else [flag(entry.name), str(value)]
    return words


def allowed_values(family: MemoryConfig, axes: MemoryAxes) -> dict[str, tuple[float, ...]]:
    """The values that a family may have of each setting that lies on an axis, by the name of the setting."""
    alone = "lmbda" in family.weight_names
    interp_temps = axes.interp_temps if alone else ()
    swapped = family.softmax_temp_is_neighbors
    temperatures = axes.temperatures if family.joint_memory else interp_temps if swapped else ()
    values = {
        "softmax_temp": temperatures,
        "mem_size": tuple(size for size in axes.mem_sizes if size <= family.mem_size and family.use_long),
        "k": tuple(k for k in axes.ks if k <= family.k and family.searches),
        "interp_temp": () if swapped else interp_temps,
    }
    return {name: found for name, found in values.items() if found}


def with_values(family: MemoryConfig, values: Mapping[str, float]) -> MemoryConfig:
    """The family with values of :func:`allowed_values`; its weights stay as they are."""
    changes: dict[str, Any] = dict(values)
    if "mem_size" in values:
        changes["use_long"] = values["mem_size"] > 0
    return replace(family, **changes)


def effective_values(config: MemoryConfig) -> dict[str, float]:
    """The settings that have an effect, by their names: a weight of 0 makes those of its memory idle."""
    neighbors = "lmbda" in config.weight_names and config.lmbda != 0
    joint = config.joint_memory and not (config.mode == "li" and config.cache_lmbda == 0)
    values = {
        "softmax_temp": config.joint_temp
        if joint or (neighbors and config.softmax_temp_is_neighbors)
        else None,
        "mem_size": config.mem_size if joint else None,
        "k": config.k if neighbors or (joint and config.use_external) else None,
        "interp_temp": config.interp_temp if neighbors and not config.softmax_temp_is_neighbors else None,
        **dict(zip(config.weight_names, config.weights)),
    }
    return {name: value for name, value in values.items() if value is not None}
