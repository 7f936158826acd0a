"""The settings that a checkpoint brings: plain data, of which nothing may be run.

fairseq calls ``eval`` on some of their strings. So each of those must be a literal of the type that fairseq
expects, and no other string may be code.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from omegaconf import DictConfig
from omegaconf.base import Node

from .literals import LITERAL_LENGTH, is_code, literal

_SCALARS = (str, int, float, complex, bool, type(None))
_DEEPEST = 40
# Containers that hold each other many times over have more values than anybody can go through.
_MOST = 10**5
# Settings that fairseq never evaluates, and in which people write what they like: "wiki (1)" is a folder.
_FREE_TEXT = re.compile(
    r"(^|_)(data|paths?|dirs?|logdir|files?|filename|indexfile|project|entity|repo|input|json|codes|mmap|"
    r"batches|prefix|subset|name|model)$"
)


def _each(value: Any, fits: Callable[[Any], bool]) -> bool:
    """Whether a value, or each value of a list of them, fits."""
    return all(map(fits, value)) if isinstance(value, (list, tuple)) else fits(value)


def _is_integer(value: Any) -> bool:
    return type(value) is int


def _is_switch(value: Any) -> bool:
    return isinstance(value, int)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


_INTEGERS = ("integers", lambda value: _each(value, _is_integer))
_LAYERS = ("tuples of integers", lambda value: _each(value, lambda layer: _each(layer, _is_integer)))
_SWITCHES = ("truth values", lambda value: _each(value, _is_switch))
_NUMBERS = ("numbers", lambda value: _each(value, _is_number))
_MAPPING = ("a mapping", lambda value: isinstance(value, dict))
_LITERAL = ("a literal", lambda value: True)

# Settings that fairseq evaluates, with their types: of models, criterions, optimisers and schedules.
_EVALUATED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("adaptive_softmax_cutoff", "adaptive_input_cutoff"), _INTEGERS),
    **dict.fromkeys(("pipeline_balance", "pipeline_devices"), _INTEGERS),
    **dict.fromkeys(("pipeline_encoder_balance", "pipeline_encoder_devices"), _INTEGERS),
    **dict.fromkeys(("pipeline_decoder_balance", "pipeline_decoder_devices"), _INTEGERS),
    **dict.fromkeys(("encoder_kernel_size_list", "decoder_kernel_size_list"), _INTEGERS),
    **dict.fromkeys(("character_filters", "encoder_layers", "decoder_layers"), _LAYERS),
    **dict.fromkeys(("conv_feature_layers", "conv_aggregator_layers", "feature_encoder_spec"), _LAYERS),
    **dict.fromkeys(("override_encoder_layers", "conv_layers", "input_layers"), _LAYERS),
    **dict.fromkeys(("encoder_attention", "decoder_attention", "self_attention"), _SWITCHES),
    **dict.fromkeys(("gated_attention", "project_input", "downsample", "pretrained"), _SWITCHES),
    **dict.fromkeys(("adam_betas", "adamax_betas", "adafactor_eps", "lamb_betas"), _NUMBERS),
    **dict.fromkeys(("lr", "latent_temp", "update_freq"), _NUMBERS),
    **dict.fromkeys(("xformers_att_config", "model_overrides", "optimizer_overrides"), _MAPPING),
    **dict.fromkeys(("conv_enc_config", "conv_dec_config", "vggblock_enc_config"), _LITERAL),
    **dict.fromkeys(("transformer_enc_config", "transformer_dec_config"), _LITERAL),
    **dict.fromkeys(("transformer_context", "transformer_sampling", "wer_args", "manual_lr"), _LITERAL),
}


def check_settings(settings: Any, replaced: Iterable[str] = ()) -> None:
    """Refuses settings that are more than plain data.

    Args:
        settings: ``args`` or ``cfg`` of a checkpoint: a Namespace, a dict or one of OmegaConf's containers.
        replaced: names of settings that are not looked at, unless they are groups.

    Raises:
        ValueError: that goes on from the name of the file, for a string that fairseq would evaluate and that
            is no literal of the expected type, other code, an interpolation of OmegaConf's, and for what is
            no plain data.
    """
    for name, value in _values(settings, skipped=frozenset(replaced)):
        _check(name, value)


def check_sizes(settings: Any, tensors: int, elements: int) -> None:
    """Refuses a model far larger than the weights beside its settings.

    Args:
        tensors, elements: number of the weights, and of their values.

    Raises:
        ValueError: as of :func:`check_settings`.
    """
    for name, value in _values(settings):
        largest = None
        if name.endswith("_dim"):
            largest = max(elements, 2**16)
        elif name.endswith("_layers"):
            largest = max(tensors, 2**10)
        elif name == "max_target_positions":
            largest = max(elements, 2**20)
        if largest is not None and isinstance(value, (int, float)) and not value <= largest:
            raise ValueError(f"sets {name} to {value:,}, which does not fit its {elements:,} weights")
        if name.endswith(("_attention_heads", "max_target_positions")) and isinstance(value, (int, float)):
            if not value >= 1:
                raise ValueError(f"sets {name} to {value}, which must be positive: it is damaged")


def _values(
    settings: Any,
    name: str = "",
    depth: int = 0,
    skipped: frozenset[str] = frozenset(),
    visits: Iterator[int] | None = None,
) -> Iterator[tuple[str, Any]]:
    """Every value that is no container, with the name of its setting; none of ``skipped``."""
    visits = visits or count()
    if depth > _DEEPEST:
        raise ValueError(f"sets {name} to lists in lists, too deeply for a setting")
    if next(visits) == _MOST:
        raise ValueError(f"sets {name} and others to more than {_MOST:,} values: these are no settings")
    if isinstance(settings, Node):
        # Unlike OmegaConf.to_container, piece by piece.
        settings = settings._value()
    if isinstance(settings, argparse.Namespace):
        settings = vars(settings)
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            if not isinstance(key, (str, int)):
                raise ValueError(f"sets {name} to a mapping whose names are {type(key).__name__}")
            # A group of settings, which may have the name of a flag (--task), is not replaced as a whole.
            if key not in skipped or isinstance(value, (Mapping, argparse.Namespace, DictConfig)):
                yield from _values(value, str(key), depth + 1, skipped, visits)
    elif isinstance(settings, (list, tuple, set, frozenset)):
        for value in settings:
            yield from _values(value, name, depth + 1, skipped, visits)
    else:
        yield name, settings


def _check(name: str, value: Any) -> None:
    if type(value) not in _SCALARS:
        raise ValueError(f"sets {name} to {type(value).__name__}, which is no plain data")
    if not isinstance(value, str):
        return
    shown = value if len(value) <= 60 else value[:57] + "..."
    if "${" in value:
        raise ValueError(f"sets {name} to {shown!r}: the settings of a checkpoint must not refer to others")
    if name in _EVALUATED:
        expected, fits = _EVALUATED[name]
        if value and not _is_literal(value, fits):
            raise ValueError(f"sets {name} to {shown!r}, where fairseq expects {expected}")
    elif not _FREE_TEXT.search(name) and (len(value) > LITERAL_LENGTH or is_code(value)):
        raise ValueError(f"sets {name} to {shown!r}, which looks like code: nothing of it is run")


def _is_literal(text: str, fits: Callable[[Any], bool]) -> bool:
    try:
        value = literal(text)
    except ValueError:
        return False
    return value is None or fits(value)
