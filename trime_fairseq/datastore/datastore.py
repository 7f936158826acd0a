"""The files of a datastore: raw arrays as in kNN-LM and kNN-MT, and a manifest that describes them.

For N rows of dimension d:

    keys      g(c), float16 or float32, N x d
    values    the token that followed each key, int64, N x 1

The arrays have no header, despite their ending. While they are written they are called ``.partial``. Values
of other tools may be int32 or int16. Where the files lie: :mod:`.layout`.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..files import Description, Differences, NotNegative, Positive, file_checksum, text_hash
from .layout import keys_path, manifest_path, values_path
from .legacy import likely_value_dtype, problem_of_size

METRICS = ("l2", "ip", "cos")
# These fields say that the files of a store are whole; they are known once the files are.
_CONTENTS = ("complete", "keys_bytes", "values_bytes", "keys_checksum", "values_checksum")


class DatastoreError(ValueError):
    """A datastore or an index that cannot be used as asked; the message names the file and the fix."""


@dataclass(frozen=True)
class Manifest(Description):
    """What is in a datastore, and what it was made from.

    Attributes:
        rows, dimension: N and d.
        key_dtype: ``float16`` or ``float32``: the type of the keys, also where they are not stored.
        keys_stored: whether the keys are there; a streamed store has its index and values only.
        key_type: the representation g(c), as in ``--knn-keytype``.
        metric: the similarity the keys were made for; an index may use another.
        dictionary_hash: SHA-256 of the symbols, one a line.
        checkpoint, checkpoint_hash: the model's path as it was given, and SHA-256 of the file.
        data_hash: SHA-256 of the binarised text (index and tokens), of both sides of a translation.
        subset: of the text.
        sample_break_mode, tokens_per_sample, context_window, context_full_only: as it was evaluated;
            ``tokens_per_sample`` counts the context window. None for translations, and likewise
        languages, sentences, sentences_hash: source and target as ``de-en``, the number of sentences that
            are stored, and a hash of their numbers and lengths in the order of rows; None for language
            models.
        num_shards: number of row ranges that are written by processes of their own.
        complete: whether all rows are there.
        keys_bytes, values_bytes: sizes of the files; None until they are complete, where keys are not stored,
            and in manifests of earlier versions; likewise
        keys_checksum, values_checksum: see :func:`trime_fairseq.files.file_checksum`.
    """

    error: ClassVar[type[ValueError]] = DatastoreError

    rows: Positive
    dimension: Positive
    key_dtype: Annotated[str, ("float16", "float32")]
    keys_stored: bool
    key_type: str
    dictionary_hash: str | None
    checkpoint: str | None
    checkpoint_hash: str | None
    data_hash: str | None
    subset: str
    sample_break_mode: str | None = None
    tokens_per_sample: Positive | None = None
    context_window: NotNegative | None = None
    context_full_only: bool | None = None
    languages: str | None = None
    sentences: Positive | None = None
    sentences_hash: str | None = None
    num_shards: Annotated[int, 1, 2**16] = 1
    complete: bool = False
    metric: Annotated[str, METRICS] = "ip"
    value_dtype: Annotated[str, ("int64", "int32", "int16")] = "int64"
    keys_bytes: Positive | None = None
    values_bytes: Positive | None = None
    keys_checksum: str | None = None
    values_checksum: str | None = None

    @classmethod
    def read(cls, prefix: str) -> "Manifest | None":
        """None for a store without a manifest.

        Raises:
            DatastoreError: for a file that is no manifest, or of a later format.
        """
        path = manifest_path(prefix)
        if not os.path.exists(path):
            return None
        otherwise = "is no manifest of a datastore: is the prefix right?"
        return cls.load(path, otherwise)

    def write(self, prefix: str) -> None:
        self.save(manifest_path(prefix))

    def conflicts(self, other: "Manifest", *ignored: str) -> Differences:
        """Fields that make another store; paths do not count, contents do."""
        names = set(asdict(self)) - {"checkpoint", *_CONTENTS, *ignored}
        return self.differences(other, [name for name in asdict(self) if name in names])

    def files(self, prefix: str) -> dict[str, int]:
        """The files of the complete store, and the bytes that they have."""
        rows = {values_path(prefix): self.rows * np.dtype(self.value_dtype).itemsize}
        if self.keys_stored:
            rows[keys_path(prefix, self.key_dtype)] = (
                self.rows * self.dimension * np.dtype(self.key_dtype).itemsize
            )
        return rows

    def damage(self, prefix: str) -> str:
        """Which files of the complete store are missing or have another size, in words; empty if none is."""
        found = []
        for path, size in self.files(prefix).items():
            if not os.path.isfile(path):
                found.append(f"{path} is not there")
            elif os.path.getsize(path) != size:
                found.append(f"{path} has {os.path.getsize(path):,} of {size:,} bytes")
        return ", ".join(found)

    def completed(self, prefix: str, checksum: Callable[[str], str] = file_checksum) -> "Manifest":
        """A manifest that also holds sizes and checksums of the files, which must be whole."""
        paths = {"values": values_path(prefix)}
        if self.keys_stored:
            paths["keys"] = keys_path(prefix, self.key_dtype)
        contents: dict[str, Any] = {f"{name}_bytes": os.path.getsize(path) for name, path in paths.items()}
        contents |= {f"{name}_checksum": checksum(path) for name, path in paths.items()}
        return replace(self, complete=True, **contents)

    def fingerprint(self) -> str:
        """Tells stores with different rows apart, wherever they lie."""
        identity = (self.rows, self.dimension, self.key_type, self.checkpoint_hash, self.data_hash)
        window = (self.subset, self.sample_break_mode, self.tokens_per_sample, self.context_window)
        # Indexes note it: it must not change for stores that are there.
        text = repr((identity, window, self.context_full_only, self.key_dtype))
        return text_hash(text if self.sentences_hash is None else f"{text} {self.sentences_hash}")


@dataclass(frozen=True)
class Datastore:
    """A complete datastore, memory-mapped.

    Attributes:
        keys: float16 or float32 [rows, dimension]; None where they are not stored or not wanted.
        values: integers [rows].
        manifest: None for a store of the published tools.
        dimension: None where neither keys nor a manifest tell.
    """

    prefix: str
    values: NDArray[Any]
    keys: NDArray[Any] | None
    dimension: int | None
    manifest: Manifest | None

    @property
    def rows(self) -> int:
        return len(self.values)

    def fingerprint(self) -> str:
        """Tells stores with different rows apart; without a manifest, by their values."""
        if self.manifest is not None:
            return self.manifest.fingerprint()
        step = max(1, self.rows // 10_000)
        return text_hash(f"{self.rows} {np.asarray(self.values[::step]).tolist()}")


def open_datastore(
    prefix: str,
    *,
    rows: int | None = None,
    dimension: int | None = None,
    fp16: bool = False,
    need_keys: bool = False,
    likely_dimension: int | None = None,
) -> Datastore:
    """Opens a complete datastore for reading.

    Args:
        prefix: P of :mod:`.layout`.
        rows, dimension: N and d where there is no manifest; otherwise checked against it. Without
            both, N is told by the size of the values and d by that of the keys.
        fp16: the keys are float16; for stores without a manifest.
        need_keys: whether missing keys are an error.
        likely_dimension: d of the model; tells the type of the values of a store without a manifest.

    Raises:
        DatastoreError: for files that are missing, incomplete, of other sizes than they should be.
    """
    manifest = Manifest.read(prefix)
    if manifest is not None:
        if not manifest.complete:
            raise DatastoreError(
                f"the datastore {prefix} is not complete: run the command that writes it again, it will "
                "continue"
            )
        for name, given, stored in (
            ("rows", rows, manifest.rows),
            ("dimension", dimension, manifest.dimension),
        ):
            if given is not None and given != stored:
                raise DatastoreError(
                    f"{manifest_path(prefix)} says {stored:,}, not {given:,} (`{name}`): leave it out"
                )
        if fp16 and manifest.key_dtype != "float16":
            raise DatastoreError(
                f"{prefix} has {manifest.key_dtype} keys: leave out `fp16`, the manifest tells"
            )
        rows, dimension, fp16 = manifest.rows, manifest.dimension, manifest.key_dtype == "float16"
    key_dtype = "float16" if fp16 else "float32"
    path = keys_path(prefix, key_dtype)
    if manifest is not None:
        value_dtype = manifest.value_dtype
    else:
        value_dtype = likely_value_dtype(prefix, key_dtype, rows, dimension or likely_dimension)
    values = _map(values_path(prefix), value_dtype, rows, 1)[:, 0]
    keys = None
    if os.path.exists(path):
        problem = problem_of_size(path, key_dtype, len(values), dimension or likely_dimension)
        if problem and manifest is None:
            raise DatastoreError(f"{path} {problem}")
        keys = _map(path, key_dtype, len(values), dimension)
        dimension = keys.shape[1]
    elif need_keys:
        raise DatastoreError(_no_keys(prefix, path, manifest, fp16))
    return Datastore(prefix, values, keys, dimension, manifest)


def _no_keys(prefix: str, path: str, manifest: Manifest | None, fp16: bool) -> str:
    if manifest is not None and not manifest.keys_stored:
        return f"the datastore {prefix} was streamed, its keys were never stored: do without (`need_keys`)"
    other = keys_path(prefix, "float32" if fp16 else "float16")
    if os.path.exists(other):
        return f"{path} does not exist, but {other} does: {'leave out' if fp16 else 'pass'} `fp16`"
    return f"{path} does not exist: check the prefix, or do without the keys (`need_keys`)"


def _map(path: str, dtype: str, rows: int | None, columns: int | None) -> NDArray[Any]:
    """A raw array [rows, columns] of a file that has just that size."""
    if not os.path.exists(path):
        hint = "the datastore is not complete" if os.path.exists(path + ".partial") else "check the prefix"
        raise DatastoreError(f"{path} does not exist: {hint}")
    if not os.path.isfile(path):
        raise DatastoreError(f"{path} is no regular file: check the prefix")
    items, rest = divmod(os.path.getsize(path), np.dtype(dtype).itemsize)
    rows = items // (columns or 1) if rows is None else rows
    columns = items // max(rows, 1) if columns is None else columns
    if rest or rows * columns != items or not items:
        raise DatastoreError(
            f"{path} has {os.path.getsize(path):,} bytes, not those of {rows:,} x {columns:,} {dtype}: "
            "another size, dimension or type (`rows`, `dimension`, `fp16`), or it was cut off (then write "
            "the datastore again)"
        )
    return np.memmap(path, dtype=dtype, mode="r", shape=(rows, columns))


def finite(keys: NDArray[Any]) -> bool:
    """Whether float16 or float32 keys hold neither NaN nor infinity: by their exponent bits, several times
    faster than ``numpy.isfinite`` on float16."""
    bits, exponent = ("uint16", 0x7C00) if keys.dtype == np.float16 else ("uint32", 0x7F800000)
    return not bool(((keys.view(bits) & exponent) == exponent).any())
