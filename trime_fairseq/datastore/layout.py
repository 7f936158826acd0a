"""Where the files of a datastore lie: under the prefix P, as in kNN-LM, or in the folder P, as in kNN-MT.

    prefix P                          folder P
    P-fp16_keys.npy or P_keys.npy     P/keys.npy
    P_vals.npy                        P/vals.npy
    P.json                            P/manifest.json
    P.shard-I-of-N.json               P/shard-I-of-N.json    notes of those that write rows

P is a folder if it ends with a slash, or if there is such a folder and no values of a prefix beside it.
"""

import os


def is_folder(prefix: str) -> bool:
    """Whether the files lie in the folder ``prefix``."""
    if prefix.endswith("/"):
        return True
    values = f"{prefix}_vals.npy"
    return os.path.isdir(prefix) and not (os.path.exists(values) or os.path.lexists(f"{values}.partial"))


def folder_prefix(folder: str) -> str:
    """The prefix of a datastore in ``folder``, which need not be there yet."""
    return os.path.join(folder, "")


def keys_path(prefix: str, dtype: str) -> str:
    if is_folder(prefix):
        return os.path.join(prefix, "keys.npy")
    return f"{prefix}-fp16_keys.npy" if dtype == "float16" else f"{prefix}_keys.npy"


def values_path(prefix: str) -> str:
    return os.path.join(prefix, "vals.npy") if is_folder(prefix) else f"{prefix}_vals.npy"


def manifest_path(prefix: str) -> str:
    return os.path.join(prefix, "manifest.json") if is_folder(prefix) else f"{prefix}.json"


def note_path(prefix: str, shard_id: int, num_shards: int) -> str:
    """The note of a process that writes one of ``num_shards`` ranges of a store."""
    name = f"shard-{shard_id}-of-{num_shards}.json"
    return os.path.join(prefix, name) if is_folder(prefix) else f"{prefix}.{name}"


def all_files(prefix: str) -> str:
    """A pattern of them all, for messages."""
    return os.path.join(prefix, "*") if is_folder(prefix) else f"{prefix}*"
