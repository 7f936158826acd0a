"""What the rest of the package asks of a model once it is built."""

from dataclasses import dataclass
from typing import Any

from .positions import positions_are_learned
from .representation import key_dimension


@dataclass(frozen=True)
class ModelTraits:
    """What a built model has: keys, positions.

    Attributes:
        key_dimension: d of its keys; 0 where it has none.
        no_keys: why it has none.
        learned_positions: it cannot run on more positions than it was built for.
    """

    key_dimension: int = 0
    no_keys: str = ""
    learned_positions: bool = False

    @classmethod
    def of(cls, model: Any, key_type: str, whose: str) -> "ModelTraits":
        """Reads the traits of a model.

        Args:
            model: a language model of fairseq.
            key_type: the representation that is the key.
            whose: how messages name the model.
        """
        learned = positions_are_learned(model)
        try:
            return cls(key_dimension(model.decoder, key_type), learned_positions=learned)
        except ValueError as error:
            return cls(no_keys=f"{whose}: {error}", learned_positions=learned)

    def check_keys(self) -> None:
        """Raises ValueError if the model has no representation to take keys from."""
        if self.no_keys:
            raise ValueError(self.no_keys)
