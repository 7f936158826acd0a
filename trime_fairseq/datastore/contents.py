"""What the arrays of a datastore hold: tokens of a dictionary, numbers, the keys of an index."""

import numpy as np

from .datastore import Datastore, DatastoreError
from .float_keys import check_finite
from .index.checks import BUILD_AGAIN, decoded_keys
from .index.faiss_library import import_faiss
from .index.files import Index
from .layout import keys_path, manifest_path, values_path
from .progress import checksum_with_progress

# So many keys are compared with an index, and so large a share must be nearer to its own row than to another.
# By chance that is half of them, plus or minus 0.02; even a code of 8 bits brings it above 0.7.
_SAMPLE, _LEAST_SHARE = 1000, 0.6
# A coarse code shortens keys, in practice to no less than half of their length.
_MOST_LENGTH = 4.0
# Squared length that is more than rounding, and the share of a sample that may be zero nevertheless.
_ZERO, _MOST_LOST = 1e-6, 0.01


def check_values(store: Datastore, vocabulary: int | None = None) -> int:
    """Checks the tokens of a store, in two passes, and returns the largest.

    Args:
        vocabulary: number of symbols of the dictionary, if it is known.

    Raises:
        DatastoreError: for values that no dictionary or not this one has, and for another checksum.
    """
    path = values_path(store.prefix)
    noted = store.manifest.values_checksum if store.manifest is not None else None
    if noted is not None and checksum_with_progress(path) != noted:
        raise DatastoreError(
            f"{path} is not what was written: its checksum is not the one of "
            f"{manifest_path(store.prefix)}; it is "
            "damaged or another datastore's: remove it and write the datastore again"
        )
    least, largest = int(store.values.min()), int(store.values.max())
    if least < 0:
        raise DatastoreError(
            f"{path} holds {least:,}, which is no token of a dictionary: it is damaged, or of another type "
            f"than {store.values.dtype} (int16 holds 32,768 words); write the datastore again"
        )
    if vocabulary is not None and largest >= vocabulary:
        raise DatastoreError(
            f"{path} holds the token {largest:,}, but the dictionary (DATA/dict.txt) has {vocabulary:,} "
            "symbols: it is of another dictionary, of another type, or damaged; write the datastore again"
        )
    return largest


def check_keys(index: Index, store: Datastore) -> None:
    """Compares a sample of the keys of a store with those of an index.

    Raises:
        DatastoreError: if they are not, or are no numbers.
    """
    sample = decoded_keys(index.faiss, _SAMPLE)
    if sample is None or store.keys is None:
        return
    rows, decoded = sample
    path = keys_path(store.prefix, str(store.keys.dtype))
    check_finite(store.keys[rows], rows, path)
    keys = np.array(store.keys[rows], dtype=np.float32)
    if index.metric == "cos":
        import_faiss().normalize_L2(keys)
    if not np.isfinite(decoded).all():
        raise DatastoreError(f"the index {index.path} holds NaN or infinity: {BUILD_AGAIN}")
    # No key of a model is zero. Where a copy lost a part of a file, or a disk did, zeros are.
    lost = ~keys.any(axis=1) & (np.square(decoded).sum(axis=1) > _ZERO)
    if lost.mean() > _MOST_LOST:
        raise DatastoreError(
            f"{path} holds zeros where the index {index.path} has keys ({lost.mean():.0%} of a sample): a "
            "part of it is lost; copy it again, or write the datastore again"
        )
    with np.errstate(over="ignore"):
        own = np.square(decoded - keys).sum(axis=1)
        others = np.square(decoded - np.roll(keys, len(keys) // 2, axis=0)).sum(axis=1)
        length = np.sqrt(np.square(decoded).sum() / max(np.square(keys).sum(), 1e-30))
    if keys.any() and not 1 / _MOST_LENGTH < length < _MOST_LENGTH:
        raise DatastoreError(
            f"the keys of {path} and those of the index {index.path} differ in length (1 to {length:.3g}): "
            "one was normalised for cos, or is another model's; build the index again with trime-build-index"
        )
    if np.mean(own <= others) < _LEAST_SHARE:
        raise DatastoreError(
            f"the keys of {path} are not those of the index "
            f"{index.path}: one of them is another model's or another text's; build the index again with "
            "trime-build-index"
        )
