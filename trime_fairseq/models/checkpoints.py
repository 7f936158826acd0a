"""Reading published checkpoints (fairseq 0.9), and refusing those that do not fit the data."""

import argparse
import collections
import logging
from typing import Any

import torch
from fairseq.distributed.utils import _TensorPlaceholder
from omegaconf import AnyNode, DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata

logger = logging.getLogger(__name__)

# Since 2.6 torch.load refuses all classes that are not named here. Checkpoints of fairseq 0.9 hold their
# settings as an argparse.Namespace. And where several devices resume, fairseq's first process sends the
# checkpoint to the others through torch.load, the settings as OmegaConf's containers.
_PLAIN_DATA = [
    argparse.Namespace,
    _TensorPlaceholder,
    *(DictConfig, ListConfig, AnyNode, Metadata, ContainerMetadata),
    *(Any, dict, list, int, collections.defaultdict),
]
if hasattr(torch.serialization, "add_safe_globals"):
    torch.serialization.add_safe_globals(_PLAIN_DATA)


def check_cutoffs(num_types: int, *cutoffs: str | None) -> None:
    """Raises ValueError if a comma-separated list of cutoffs exceeds a dictionary of ``num_types``."""
    for cutoff in cutoffs:
        if cutoff and max(int(band) for band in str(cutoff).strip("[]").split(",")) > num_types:
            raise ValueError(
                f"the adaptive cutoffs {cutoff} exceed the dictionary of DATA ({num_types:,} types): "
                "wrong DATA for this checkpoint, or --adaptive-softmax-cutoff and "
                "--adaptive-input-cutoff do not suit it"
            )


def embedded_types(state: dict[str, torch.Tensor]) -> int | None:
    """Number of types that a language model's state dict embeds; None for an embedding of another kind."""
    plain = state.get("decoder.embed_tokens.weight")
    if plain is not None:
        return plain.size(0)
    bands: list[int] = []
    while f"decoder.embed_tokens.embeddings.{len(bands)}.0.weight" in state:
        bands.append(state[f"decoder.embed_tokens.embeddings.{len(bands)}.0.weight"].size(0))
    return sum(bands) or None


def refuse_other_dictionary(model: torch.nn.Module, num_types: int) -> None:
    """Makes ``model.load_state_dict`` refuse a checkpoint of another dictionary size with one ValueError,
    instead of a list of mismatched tensors."""

    def check(state: dict[str, torch.Tensor], *unused: Any) -> None:
        found = embedded_types(state)
        if found is not None and found != num_types:
            message = (
                f"the checkpoint was trained with a dictionary of {found:,} types, DATA/dict.txt has "
                f"{num_types:,}: preprocess DATA with the checkpoint's dictionary (--srcdict)"
            )
            # The trainer turns whatever is raised into "ensure that the architectures match".
            logger.error(message)
            raise ValueError(message)

    model._register_load_state_dict_pre_hook(check)
