"""The memories of an evaluation: which are used, how large, how they are combined."""

import math
from dataclasses import dataclass
from typing import Any, Optional

MODES = ("gn", "lm", "li")


@dataclass(frozen=True)
class MemorySettings:
    """Values of the evaluation flags of the same names.

    Attributes:
        use_local: earlier tokens of the model input, context window included.
        use_long: before them, the last ``mem_size`` evaluated tokens of preceding samples.
        mem_size: capacity of the long-term memory, in tokens.
        softmax_temp: temperature tau of the similarities; token logits are not divided by it.
        knn_keytype: the representation that serves as query and as key.
        mode: ``gn`` joint normalisation over tokens and memories (TRIME), ``lm`` the plain model,
            ``li`` linear interpolation of memory softmax and token softmax (continuous cache).
        cache_lmbda: weight of the memory softmax in mode ``li``.
        use_external: the ``k`` nearest keys of a datastore.
        k: number of neighbours.
        use_interp: interpolate the result with the softmax over the neighbours alone, of weight ``lmbda``
            and temperature ``interp_temp`` (their scores are not divided by sqrt(d)).
        knnlm: the plain kNN-LM: no memory in the softmax, but the same interpolation, of weight
            ``lmbda`` and temperature ``softmax_temp``.
        exact_tails: adaptive softmax, mode ``gn``: charge the words at cutoff + 1 for their place in
            the tail, which the published code does not (see ``adaptive_token_scores``).
        memory_impl: how similarities are computed, ``impl`` of ``memory_lse``.
    """

    use_local: bool = False
    use_long: bool = False
    mem_size: int = 0
    softmax_temp: float = 1.0
    knn_keytype: str = "last_ffn_input"
    mode: str = "gn"
    cache_lmbda: Optional[float] = None
    exact_tails: bool = False
    use_external: bool = False
    k: int = 1024
    use_interp: bool = False
    interp_temp: float = 1.0
    lmbda: Optional[float] = None
    knnlm: bool = False
    memory_impl: str = "auto"

    @classmethod
    def from_config(cls, config: Any) -> "MemorySettings":
        """Reads the fields of the same names from a task configuration and checks them."""
        values = {name: getattr(config, name) for name in cls.__dataclass_fields__}
        # Choices arrive as an enumeration of fairseq's, which JSON does not know.
        values.update((name, str(values[name])) for name in ("mode", "knn_keytype", "memory_impl"))
        settings = cls(**values)
        settings.check()
        return settings

    def check(self) -> None:
        """Raises ValueError, naming the flag and the mend, if the settings contradict each other."""
        if not 0 < self.softmax_temp < math.inf:
            raise ValueError(f"--softmax-temp must be positive, not {self.softmax_temp}")
        if self.mem_size < 0:
            raise ValueError(f"--mem-size must be positive, not {self.mem_size}")
        if self.use_long and not self.use_local:
            raise ValueError("--use-long adds to the local memory: pass --use-local as well")
        if self.use_long and self.mem_size == 0:
            raise ValueError("--use-long needs --mem-size N, the number of preceding tokens to keep")
        if self.mem_size > 0 and not self.use_long:
            raise ValueError("--mem-size is the size of the long-term memory: pass --use-long as well")
        if self.mode == "li":
            if not (self.use_local or self.use_external):
                raise ValueError("--mode li interpolates with a memory: pass --use-local as well")
            if self.cache_lmbda is None or not 0.0 <= self.cache_lmbda < 1.0:
                raise ValueError("--mode li needs --cache-lmbda, the weight of the memory, in [0, 1)")
        elif self.cache_lmbda is not None:
            raise ValueError("--cache-lmbda is the weight of --mode li: pass --mode li as well")

        self._check_external()

    def _check_external(self) -> None:
        if self.k < 1:
            raise ValueError(f"--k must be positive, not {self.k}")
        if not 0 < self.interp_temp < math.inf:
            raise ValueError(f"--interp-temp must be positive, not {self.interp_temp}")
        if self.knnlm:
            if self.use_local or self.use_external or self.use_interp or self.mode != "gn":
                raise ValueError(
                    "--knnlm is the plain kNN-LM: no --use-local, --use-external, --use-interp or --mode"
                )
            if self.interp_temp != 1.0:
                raise ValueError("--knnlm takes its temperature from --softmax-temp, not --interp-temp")
        elif self.use_interp:
            if not self.use_external:
                raise ValueError("--use-interp interpolates with the neighbours: pass --use-external as well")
            if self.mode != "gn":
                raise ValueError(f"--use-interp interpolates with --mode gn, not {self.mode}")
        elif self.lmbda is not None or self.interp_temp != 1.0:
            raise ValueError("--lmbda and --interp-temp are for --use-interp: pass it as well")
        if (self.knnlm or self.use_interp) and (self.lmbda is None or not 0.0 <= self.lmbda <= 1.0):
            raise ValueError("--lmbda, the weight of the neighbours' distribution, is needed, in [0, 1]")

    @property
    def joint_memory(self) -> bool:
        """Whether any memory enters the softmax."""
        return (self.use_local or self.use_external) and self.mode != "lm"

    @property
    def searches(self) -> bool:
        """Whether the neighbours of each token are needed."""
        return self.knnlm or (self.use_external and self.mode != "lm")
