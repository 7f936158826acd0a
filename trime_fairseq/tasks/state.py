"""What checkpoints keep of a training for its task: its dictionaries, and the temperature of its memories."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..criterions.temperature import TrainingTemperature, is_temperature
from ..models.checkpoints import check_dictionary, dictionary_state

Dictionary = tuple[str, Sequence[str]]

# Under these names the state of a task holds ours.
_TEMPERATURE = "trime_softmax_temp"
_DICTIONARY = "trime_dictionary"
_SOURCE_DICTIONARY = "trime_source_dictionary"
_OURS = (_TEMPERATURE, _DICTIONARY, _SOURCE_DICTIONARY)


def saved_state(
    symbols: Sequence[str],
    temperature: TrainingTemperature | None,
    source_symbols: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What to save: always the dictionary, the temperature unless it is 1.

    Args:
        symbols: of the dictionary, in its order.
        temperature: of the criterion, if it has one.
        source_symbols: of the dictionary of the source language; None where there is one language.
    """
    state: dict[str, Any] = {_DICTIONARY: dictionary_state(symbols)}
    if source_symbols is not None:
        state[_SOURCE_DICTIONARY] = dictionary_state(source_symbols)
    if temperature is not None and not temperature.is_published:
        state[_TEMPERATURE] = temperature.value
    return state


def check_saved_dictionary(state: Mapping[str, Any], symbols: Sequence[str]) -> None:
    """Raises ValueError if the state is that of a training with another dictionary. Published checkpoints,
    and those of earlier versions, do not say."""
    if _DICTIONARY in state:
        check_dictionary(state[_DICTIONARY], symbols)


def check_saved_dictionaries(state: Mapping[str, Any], source: Dictionary, target: Dictionary) -> None:
    """The same for the dictionaries of a translation.

    Args:
        state: of the task.
        source, target: name of the file of each dictionary, and its symbols.
    """
    for name, (file, symbols) in ((_SOURCE_DICTIONARY, source), (_DICTIONARY, target)):
        if name in state:
            check_dictionary(state[name], symbols, file)


def saved_temperature(state: Mapping[str, Any]) -> float | None:
    """The temperature of the training; None where the state does not say.

    Raises:
        ValueError: for one that is none.
    """
    temperature: float | None = state.get(_TEMPERATURE)
    if temperature is not None and not is_temperature(temperature):
        raise ValueError(
            f"the checkpoint is damaged: the temperature of its training is {temperature!r}, no positive "
            "number"
        )
    return temperature


def without_ours(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state without our entries, for fairseq."""
    return {name: value for name, value in state.items() if name not in _OURS}
