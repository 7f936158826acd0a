"""Reads a checkpoint as data: nothing that it brings is run, whatever release of PyTorch reads it."""

import argparse
import collections
import os
import pickle
import re
import stat
import types
import zipfile
from collections.abc import Iterable
from typing import IO, Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ..files import kind_of
from .settings import check_settings, check_sizes

# First bytes of PyTorch's files: an archive, or a pickle (before PyTorch 1.6).
_ARCHIVE, _PICKLE = b"PK\x03\x04", b"\x80"
_REFUSED = re.compile(r"GLOBAL (\S+)")
# Buffers that are no weights: fairseq never fills the first, of which only the type counts, and masks are
# infinite on purpose.
_NO_WEIGHT = re.compile(r"(_float_tensor|mask)$")
# Weights that somebody compressed become a few times smaller. Far more is made to fill memory.
_MOST_COMPRESSION, _SMALL = 50, 2**27
_SIZES = "file_size", "compress_size"


def read_checkpoint(path: str, replaced: Iterable[str] = ()) -> dict[str, Any]:
    """What a checkpoint of fairseq holds, on the CPU.

    Args:
        path: file.
        replaced: names of settings that are not used, since the user gives others.

    Raises:
        ValueError: for a file that is damaged or no checkpoint of fairseq, one that holds more than data,
            settings that fairseq would run (:func:`trime_fairseq.models.settings.check_settings`), and
            weights that are no numbers. The message goes on from the name of the file: "is empty".
        OSError: for a file that cannot be read.
    """
    state = _loaded(path)
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise ValueError("is no checkpoint of fairseq: it holds no 'model'")
    settings = _settings(state)
    for name, kind in (("task_state", dict), ("extra_state", dict), ("optimizer_history", list)):
        if not isinstance(state.get(name) or kind(), kind):
            raise ValueError(f"is damaged: its {name!r} is {type(state[name]).__name__}, not {kind.__name__}")
    weights = state["model"]
    if not all(map(_is_plain, weights.values())):
        raise ValueError("is damaged: its 'model' holds something else than weights")
    elements = sum(weight.numel() for weight in weights.values())
    for part in settings:
        check_settings(part, replaced)
        check_sizes(part, len(weights), elements)
    for name, weight in weights.items():
        if not _is_finite(weight) and not _NO_WEIGHT.search(str(name)):
            raise ValueError(
                f"holds NaN or infinite weights ({name}): it is damaged, or its training diverged; take an "
                "earlier one"
            )
    return state


def _settings(state: dict[str, Any]) -> list[Any]:
    """The settings in a checkpoint: a Namespace (fairseq 0.9), a mapping, or both."""
    args, cfg = state.get("args"), state.get("cfg")
    if args is None and cfg is None:
        raise ValueError("is no checkpoint of fairseq: it holds neither 'args' nor 'cfg', its settings")
    if not isinstance(args, (argparse.Namespace, type(None))):
        raise ValueError(f"is damaged: its 'args' are {type(args).__name__}, no settings")
    if not isinstance(cfg, (dict, DictConfig, type(None))):
        raise ValueError(f"is damaged: its 'cfg' is {type(cfg).__name__}, no settings")
    return [part for part in (args, cfg) if part is not None]


def _is_plain(weight: Any) -> bool:
    """Whether it is a tensor whose values are all in the file."""
    if not isinstance(weight, Tensor) or weight.layout != torch.strided or weight.device.type != "cpu":
        return False
    if not weight.numel():
        return True
    storage = weight.untyped_storage() if hasattr(weight, "untyped_storage") else weight.storage()
    return weight.numel() * weight.element_size() <= storage.nbytes()


def _is_finite(weight: Tensor) -> bool:
    if not weight.numel() or not weight.is_floating_point():
        return True
    try:
        return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(weight.detach()))
    except RuntimeError:  # of a type that cannot be compared
        return bool(torch.isfinite(weight.detach().float()).all())


def _loaded(path: str) -> Any:
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):  # a named pipe would never open
        raise ValueError(f"is {kind_of(mode)}, no regular file: give the file of a checkpoint")
    with open(path, "rb") as file:
        begin = file.read(4)
        if not begin:
            raise ValueError("is empty: copy or download it again")
        if begin != _ARCHIVE and begin[:1] != _PICKLE:
            raise ValueError("is no checkpoint: it is no file of PyTorch")
        file.seek(0)
        try:
            return _load(path, file)
        except Exception as error:  # PyTorch and pickle raise about everything
            raise ValueError(_what_is_wrong(error)) from error


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        # PyTorch's own message says how to run it all the same.
        refused = _REFUSED.search(str(error))
        what = f" ({refused[1]})" if refused else ""
        return f"is damaged, or holds more than weights and settings{what}: nothing of it is run"
    lines = str(error).strip().splitlines() or [""]
    cause = f"{type(error).__name__}: {lines[0].partition('. ')[0][:120]}"
    return f"is damaged, cut off or no checkpoint of fairseq ({cause}): copy or download it again"


def _load(path: str, file: IO[bytes]) -> Any:
    mapped = file.read(len(_ARCHIVE)) == _ARCHIVE and _check_archive(file)
    file.seek(0)
    if not hasattr(torch.serialization, "add_safe_globals"):
        return load_with_few_classes(file)
    # Mapped, not loaded: fairseq loads it right after this.
    return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)


def _check_archive(file: IO[bytes]) -> bool:
    """Compares the checksums that PyTorch writes, and never reads.

    Returns:
        True if weights are in the file as they are in memory.

    Raises:
        zipfile.BadZipFile: for a checksum that differs, and for what is no archive.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        unpacked, packed = (sum(getattr(entry, name) for entry in entries) for name in _SIZES)
        if unpacked > max(_MOST_COMPRESSION * packed, _SMALL):
            raise zipfile.BadZipFile(f"{packed:,} bytes would become {unpacked:,}")
        for entry in entries:
            if entry.CRC:  # unless they were switched off
                with archive.open(entry) as content:
                    while content.read(1 << 20):
                        pass
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


_CLASSES = {
    ("argparse", "Namespace"): argparse.Namespace,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch", "Tensor"): torch.Tensor,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}
_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CLASSES:
            return _CLASSES[module, name]
        if module == "torch" and name.removesuffix("Storage") in _STORAGES:
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is refused")


def load_with_few_classes(file: IO[bytes]) -> Any:
    """``torch.load`` with ``weights_only``, for releases whose own does not know settings (before 2.5).

    Raises:
        pickle.UnpicklingError: for any other class than those of weights and settings.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(os.path.basename(name) == "constants.pkl" for name in archive.namelist()):
                raise pickle.UnpicklingError("GLOBAL torch.jit is refused")
    file.seek(0)
    few = types.ModuleType("few")
    few.Unpickler = _Unpickler  # type: ignore[attr-defined]
    few.load = lambda source, **options: _Unpickler(source, **options).load()  # type: ignore[attr-defined]
    more = {"weights_only": False} if hasattr(torch.serialization, "add_safe_globals") else {}
    return torch.load(file, map_location="cpu", pickle_module=few, **more)
