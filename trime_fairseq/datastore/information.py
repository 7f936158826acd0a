"""What a datastore or an index is, in words."""

import os
from collections.abc import Iterator

from .datastore import Datastore, DatastoreError, Manifest, open_datastore
from .index.checks import stored_ids
from .index.faiss_library import import_faiss
from .index.files import open_index
from .index.manifest import IndexManifest, index_manifest_path
from .layout import manifest_path, note_path, values_path
from .legacy import likely_key_dtype
from .note import Note

Line = tuple[str, str]


def information(path: str) -> Iterator[Line]:
    """Name and value of what is known of a datastore, by its prefix, or of an index, by its file.

    Raises:
        DatastoreError: if it is neither.
    """
    if os.path.isfile(path) or os.path.exists(f"{path}.partial"):
        yield from _of_index(path)
    elif os.path.exists(values_path(path)) or os.path.exists(manifest_path(path)):
        manifest = Manifest.read(path)
        yield from _of_manifest(path, manifest) if manifest is not None else _of_arrays(path)
    else:
        raise DatastoreError(f"{path} is neither the prefix of a datastore nor an index: check the path")


def _of_manifest(prefix: str, manifest: Manifest) -> Iterator[Line]:
    yield "datastore", prefix
    damage = manifest.damage(prefix) if manifest.complete else ""
    yield "complete", f"no: {damage}" if damage else ("yes" if manifest.complete else "no")
    if not manifest.complete:
        yield from _progress(prefix, manifest)
    yield "rows", f"{manifest.rows:,}"
    stored = "" if manifest.keys_stored else ", not stored (the index was built as they came)"
    yield "keys", f"{manifest.dimension} x {manifest.key_dtype}, {manifest.key_type}{stored}"
    yield "values", manifest.value_dtype
    for path, size in manifest.files(prefix).items():
        yield os.path.basename(path), f"{size:,} bytes"
    yield "text", f"{manifest.subset}, hash {_short(manifest.data_hash)}"
    yield from _of_translation(manifest) if manifest.sentences else _of_language_model(manifest)
    yield "checkpoint", f"{manifest.checkpoint}, hash {_short(manifest.checkpoint_hash)}"
    yield "dictionary", f"hash {_short(manifest.dictionary_hash)}"
    yield "made for", manifest.metric
    yield "checksums", "noted" if manifest.values_checksum else "not noted"


def _of_translation(manifest: Manifest) -> Iterator[Line]:
    yield "languages", str(manifest.languages)
    yield "sentences", f"{manifest.sentences:,}"


def _of_language_model(manifest: Manifest) -> Iterator[Line]:
    full = ", full windows only" if manifest.context_full_only else ""
    yield (
        "evaluated as",
        f"{manifest.tokens_per_sample} tokens per sample, {manifest.context_window} of them context{full}, "
        f"--sample-break-mode {manifest.sample_break_mode}",
    )


def _progress(prefix: str, manifest: Manifest) -> Iterator[Line]:
    for shard in range(manifest.num_shards):
        note = Note.read(note_path(prefix, shard, manifest.num_shards))
        name = f"shard {shard} of {manifest.num_shards}"
        yield name, f"{note.done - note.begin:,} of {note.end - note.begin:,} rows" if note else "not begun"


def _of_arrays(prefix: str) -> Iterator[Line]:
    store: Datastore = open_datastore(prefix, fp16=likely_key_dtype(prefix) == "float16")
    yield "datastore", f"{prefix}, without a manifest: sizes of files tell all that is known"
    yield "rows", f"{store.rows:,}, if values are {store.values.dtype}"
    if store.keys is not None:
        yield "keys", f"{store.dimension} x {store.keys.dtype}, if so"
    yield "tokens", f"from {int(store.values.min()):,} to {int(store.values.max()):,}"


def _of_index(path: str) -> Iterator[Line]:
    yield "index", path
    manifest = IndexManifest.read(path)
    if not os.path.isfile(path):
        partial = IndexManifest.read(f"{path}.partial")
        yield "complete", "no: it is being built, or was interrupted"
        if partial is not None:
            yield "factory", f"{partial.factory}, {partial.metric}"
            yield "rows", f"{partial.rows:,} when it is complete"
        return
    try:
        index = open_index(path)
    except DatastoreError as error:
        yield "complete", f"no: {error}"
        return
    yield "complete", "yes" if manifest is not None else f"not known: there is no {index_manifest_path(path)}"
    yield "keys", f"{index.rows:,} of dimension {index.dimension}, from row {index.starting_point:,} on"
    yield "metric", index.metric
    yield "file", f"{os.path.getsize(path):,} bytes"
    inverted = import_faiss().try_extract_index_ivf(index.faiss)
    if inverted is not None:
        sizes = [len(ids) for ids in stored_ids(index.faiss)]
        yield (
            "lists",
            f"{inverted.nlist:,}, {inverted.nprobe} searched by default, largest {max(sizes, default=0):,}",
        )
    if manifest is None:
        return
    yield "factory", manifest.factory
    yield (
        "trained with",
        f"{manifest.training_keys:,} keys at most ({manifest.training}), seed {manifest.seed}",
    )
    yield "time", f"{manifest.training_seconds:.0f} s of training, {manifest.adding_seconds:.0f} s of adding"
    yield "Faiss", str(manifest.faiss_version)
    yield "key type", str(manifest.key_type)
    yield "hashes", f"text {_short(manifest.data_hash)}, checkpoint {_short(manifest.checkpoint_hash)}"
    yield "checksum", "as noted" if manifest.checksum else "not noted"


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "not known"
