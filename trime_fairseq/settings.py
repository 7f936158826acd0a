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
        exact_tails: adaptive softmax, mode ``gn``: charge the words at cutoff + 1 for their place in
            the tail, which the published code does not (see ``adaptive_token_scores``).
    """

    use_local: bool = False
    use_long: bool = False
    mem_size: int = 0
    softmax_temp: float = 1.0
    knn_keytype: str = "last_ffn_input"
    mode: str = "gn"
    cache_lmbda: Optional[float] = None
    exact_tails: bool = False

    @classmethod
    def from_config(cls, config: Any) -> "MemorySettings":
        """Reads the fields of the same names from a task configuration and checks them."""
        values = {name: getattr(config, name) for name in cls.__dataclass_fields__}
        # Choices arrive as an enumeration of fairseq's, which JSON does not know.
        values.update(mode=str(values["mode"]), knn_keytype=str(values["knn_keytype"]))
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
            if not self.use_local:
                raise ValueError("--mode li interpolates with a memory: pass --use-local as well")
            if self.cache_lmbda is None or not 0.0 <= self.cache_lmbda < 1.0:
                raise ValueError("--mode li needs --cache-lmbda, the weight of the memory, in [0, 1)")
        elif self.cache_lmbda is not None:
            raise ValueError("--cache-lmbda is the weight of --mode li: pass --mode li as well")

    @property
    def reads_memory(self) -> bool:
        """Whether any memory enters the result."""
        return self.use_local and self.mode != "lm"
