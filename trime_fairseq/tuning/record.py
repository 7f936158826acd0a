"""What is known of every token after one pass of model and search: enough for any setting of the axes."""

from dataclasses import dataclass

from torch import Tensor

from ..evaluation.axes import MemoryAxes
from ..evaluation.config import MemoryConfig
from ..evaluation.memory_scores import ScoredMemories
from ..evaluation.mixture import Distributions, Mixture, distributions, weighted
from ..flags import flag

# The flag that a value of each axis is of.
_FLAGS = {
    "temperatures": "--softmax-temp",
    "mem_sizes": "--mem-size",
    "ks": "--k",
    "interp_temps": "the neighbours' temperature",
}


@dataclass(frozen=True)
class Record:
    """Scores of N evaluated tokens, on the CPU; tokens that do not count (``--add-bos-token``) are left out.

    Attributes:
        axes: the T temperatures, sizes, K numbers of neighbours and I temperatures of the neighbours alone.
        targets: int64 [N].
        samples: number of the sample in the text that each token belongs to, int64 [N].
        token_lse, target_logit: a and b of the objective, float32 [N].
        memories: float32: A and P of ``local`` [T, 1, 1, N], of ``long`` [T, S, 1, N] with S counting the
            sizes but 0, of ``external`` [T, 1, K, N]; ``alone`` [I, K, N]. None for a memory that no family
            needed. Large ones lie in a temporary file (:mod:`trime_fairseq.tuning.storage`).
        charges_tails: whether every word of an adaptive softmax is charged for its tail.
    """

    axes: MemoryAxes
    targets: Tensor
    samples: Tensor
    token_lse: Tensor
    target_logit: Tensor
    memories: ScoredMemories
    charges_tails: bool

    @property
    def tokens(self) -> int:
        """N."""
        return self.targets.numel()

    def index(self, axis: str, value: float) -> int:
        """Position of a value on an axis.

        Raises:
            ValueError: if it is not there.
        """
        values = getattr(self.axes, axis)
        if value not in values:
            known = ", ".join(f"{known:g}" for known in values) or "none"
            raise ValueError(f"{_FLAGS[axis]} {value:g} is not on record, but {known}")
        return int(values.index(value))


def distributions_of(record: Record, config: MemoryConfig) -> Distributions:
    """What a setting mixes; ``config`` needs no weights. For the rest see :func:`mixture`."""
    at_point = memories_of(record, config)
    return distributions(config, record.token_lse, record.target_logit, at_point.joint, at_point.alone)


def memories_of(record: Record, config: MemoryConfig) -> ScoredMemories:
    """Scores of the memories of a setting, [N]. For the rest see :func:`mixture`."""
    if config.charges_tails != record.charges_tails and config.mode != "lm":
        raise ValueError("the record was made with another --exact-tails than this setting's")
    memories = _in_use(record.memories, config)
    uses_k = memories.external is not None or memories.alone is not None
    sizes = [size for size in record.axes.mem_sizes if size]
    if memories.long is not None:
        record.index("mem_sizes", config.mem_size)
    return memories.at_point(
        record.index("temperatures", config.joint_temp) if config.joint_memory else 0,
        sizes.index(config.mem_size) if memories.long is not None else 0,
        record.index("ks", config.k) if uses_k else 0,
        record.index("interp_temps", config.neighbor_temp) if memories.alone is not None else 0,
    )


def mixture(record: Record, config: MemoryConfig) -> Mixture:
    """``log_prob``, ``mass`` and ``share`` of all tokens, float32 [N], as a separate evaluation has them.

    Args:
        record: holds the memories that ``config`` uses.
        config: a complete setting, with its weights; ``mode="lm"`` is the model without memory.

    Raises:
        ValueError: if a value is not on the axes of the record, or a memory is not in it.
    """
    return weighted(distributions_of(record, config), config.weights)


def without_memory(family: MemoryConfig) -> MemoryConfig:
    """The setting of the model alone."""
    return MemoryConfig(
        mode="lm",
        knn_keytype=family.knn_keytype,
        exact_tails=family.exact_tails,
        memory_impl=family.memory_impl,
    )


def _in_use(memories: ScoredMemories, config: MemoryConfig) -> ScoredMemories:
    """The memories of a setting."""
    wanted = {
        "local": config.use_local and config.joint_memory,
        "long": config.use_long and config.joint_memory,
        "external": config.use_external and config.joint_memory,
        "alone": "lmbda" in config.weight_names,
    }
    for name, is_wanted in wanted.items():
        if is_wanted and getattr(memories, name) is None:
            memory = "the neighbours' distribution" if name == "alone" else flag(f"use_{name}")
            raise ValueError(f"{memory} is not on record: name a family that uses it when you record")
    return ScoredMemories(**{name: getattr(memories, name) for name, used in wanted.items() if used})
