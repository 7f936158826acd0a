"""Reading published checkpoints (fairseq 0.9), and refusing those that do not fit the data."""

import argparse
import collections
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fairseq.distributed.utils import _TensorPlaceholder
from omegaconf import AnyNode, DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata

from ..files import symbols_hash
from .literals import literal

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


def architecture(args: Any) -> str:
    """The name of the architecture that the settings of a model ask for."""
    return str(getattr(args, "arch", None) or getattr(args, "_name", None) or "unknown")


def cutoffs_in_use(args: Any) -> tuple[str | None, str | None]:
    """The cutoffs of adaptive input and softmax; None where the model has none."""
    if architecture(args).startswith(("lstm_lm", "fconv_lm")) and args.criterion != "adaptive_loss":
        # They have cutoffs by default, but use them with that criterion only.
        return None, None
    return getattr(args, "adaptive_input_cutoff", None), getattr(args, "adaptive_softmax_cutoff", None)


def check_cutoffs(num_types: int, *cutoffs: str | None) -> None:
    """Raises ValueError if cutoffs, such as ``20000,60000``, are none or exceed a dictionary of
    ``num_types``."""
    for cutoff in cutoffs:
        if not cutoff:
            continue
        bands = _integers(str(cutoff))
        if not bands or min(bands) < 1 or sorted(set(bands)) != bands:
            raise ValueError(
                f"the adaptive cutoffs {cutoff} are no increasing list of numbers, such as 20000,60000: see "
                "--adaptive-softmax-cutoff and --adaptive-input-cutoff"
            )
        if bands[-1] > num_types:
            raise ValueError(
                f"the adaptive cutoffs {cutoff} exceed the dictionary of DATA ({num_types:,} types): "
                "wrong DATA for this checkpoint, or --adaptive-softmax-cutoff and "
                "--adaptive-input-cutoff do not suit it"
            )


def _integers(text: str) -> list[int] | None:
    try:
        value = literal(text)
    except ValueError:
        return None
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values if all(type(number) is int for number in values) else None


def dictionary_state(symbols: Sequence[str]) -> dict[str, Any]:
    """What checkpoints keep of the dictionary of their training.

    Args:
        symbols: of the dictionary, in its order.
    """
    return {"types": len(symbols), "hash": symbols_hash(symbols)}


def check_dictionary(trained: Any, symbols: Sequence[str], file: str = "dict.txt") -> None:
    """Compares the dictionary of a training, as :func:`dictionary_state` gave it, with that of DATA.

    Args:
        trained: the state.
        symbols: of the dictionary of DATA, in its order.
        file: its name.

    Raises:
        ValueError: if they differ.
    """
    if not isinstance(trained, Mapping):
        raise ValueError("the checkpoint is damaged: what it says of its dictionary cannot be read")
    here = dictionary_state(symbols)
    if trained.get("types") != here["types"]:
        raise ValueError(_other_size(trained.get("types"), here["types"], file))
    if trained.get("hash") != here["hash"]:
        raise ValueError(
            f"the checkpoint was trained with another dictionary of {here['types']:,} types than "
            f"DATA/{file} (other words, or the same in another order): preprocess DATA with the "
            f"checkpoint's dictionary ({_dictionary_flag(file)})"
        )


def _other_size(trained: Any, here: int, file: str) -> str:
    number = f"{trained:,}" if isinstance(trained, int) else "unknown"
    return (
        f"the checkpoint was trained with a dictionary of {number} types, DATA/{file} has "
        f"{here:,}: preprocess DATA with the checkpoint's dictionary ({_dictionary_flag(file)})"
    )


def _dictionary_flag(file: str) -> str:
    return "--srcdict" if file == "dict.txt" else "--srcdict, --tgtdict"


def embedded_types(state: dict[str, torch.Tensor], part: str = "decoder") -> int | None:
    """Number of types that a model's state dict embeds; None for an embedding of another kind.

    Args:
        part: ``decoder`` or ``encoder``.
    """
    plain = state.get(f"{part}.embed_tokens.weight")
    if plain is not None:
        return plain.size(0)
    bands: list[int] = []
    while f"{part}.embed_tokens.embeddings.{len(bands)}.0.weight" in state:
        bands.append(state[f"{part}.embed_tokens.embeddings.{len(bands)}.0.weight"].size(0))
    return sum(bands) or None


def refuse_other_dictionary(
    model: torch.nn.Module, num_types: int, file: str = "dict.txt", part: str = "decoder"
) -> None:
    """Makes ``model.load_state_dict`` refuse a checkpoint of another dictionary size with one ValueError,
    instead of a list of mismatched tensors.

    Args:
        num_types: of the dictionary.
        file: its name.
        part: of the model, ``decoder`` or ``encoder``, that embeds its types.
    """

    def check(state: dict[str, torch.Tensor], *unused: Any) -> None:
        found = embedded_types(state, part)
        if found is not None and found != num_types:
            message = _other_size(found, num_types, file)
            # The trainer turns whatever is raised into "ensure that the architectures match".
            logger.error(message)
            raise ValueError(message)

    model._register_load_state_dict_pre_hook(check)
