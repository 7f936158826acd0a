"""How long an input a model can read."""

from typing import Any

from fairseq.modules import LearnedPositionalEmbedding


def positions_are_learned(model: Any) -> bool:
    """True if the model cannot run on more positions than it was built for."""
    return isinstance(getattr(model.decoder, "embed_positions", None), LearnedPositionalEmbedding)


def check_positions(model: Any, break_mode: str, tokens_per_sample: int) -> None:
    """Raises ValueError, with flags and fix, if the model takes no whole segment: fairseq would leave them
    out."""
    positions = model.max_positions()
    if break_mode in ("none", "None") and isinstance(positions, int) and positions < tokens_per_sample:
        raise ValueError(
            f"--tokens-per-sample {tokens_per_sample} exceeds --max-target-positions {positions}: fairseq "
            "would leave all whole segments out; lower the one or raise the other"
        )


def check_room_for_bos(model: Any, tokens_per_sample: int) -> None:
    """Raises ValueError, with flag and fix, if a full sample behind ``--add-bos-token`` is too long."""
    positions = model.decoder.max_positions()
    if tokens_per_sample + 1 > positions:
        raise ValueError(
            f"--add-bos-token makes samples of --tokens-per-sample {tokens_per_sample} one token longer, but "
            f"the model has {positions} positions: pass --tokens-per-sample {positions - 1} or less"
        )
