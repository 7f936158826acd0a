"""One checkpoint of a comparison: its arguments, its families of settings, what its results depend on."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from .. import __version__
from ..data.provenance import data_folders, text_files_hash
from ..evaluation import MemoryConfig
from ..evaluation.in_process import without_our_folder
from ..files import file_hash
from .evaluation_flags import key_settings, store_files
from .kept import Identity
from .memories import Memory
from .request import Comparison, Model


class Checkpoint(NamedTuple):
    """The ``number``-th checkpoint of a model."""

    comparison: Comparison
    model: Model
    number: int

    def __str__(self) -> str:
        count = len(self.model.checkpoints)
        return self.model.name + (f", checkpoint {self.number + 1} of {count}" if count > 1 else "")

    @property
    def path(self) -> str:
        return self.model.checkpoints[self.number]

    def families(self) -> dict[Memory, MemoryConfig]:
        """What is tuned for each row."""
        keys, _ = key_settings(self.model.evaluation)
        k = self.model.searches[self.number].k if self.model.searches else 0
        return {memory: memory.family(k, **keys) for memory in self.model.memories}

    def arguments(self, subset: str, searches: bool) -> list[str]:
        """Of ``fairseq-eval-lm``, but what says which memories there are.

        Args:
            searches: whether a memory needs the datastore.
        """
        _, others = key_settings(self.model.evaluation)
        words = [self.comparison.data, "--path", self.path, "--gen-subset", subset, *others]
        return [*words, *self.model.searches[self.number].flags] if searches else words

    def identity(self) -> Identity:
        """What the results depend on."""
        comparison, model = self.comparison, self.model
        data = comparison.data
        datastore = ""
        if model.searches:
            search = model.searches[self.number]
            datastore = f"k {search.k} {' '.join(search.flags)}: {_stamp(search.flags)}"
        return Identity(
            checkpoint_hash=file_hash(self.path) or "",
            dictionary_hash=file_hash(os.path.join(data_folders(data)[0], "dict.txt")) or "",
            tune_hash=text_files_hash(data, comparison.tune) or "",
            test_hash=text_files_hash(data, comparison.test) or "",
            train_hash=text_files_hash(data, "train"),
            tune=comparison.tune,
            test=comparison.test,
            flags=" ".join(without_our_folder(model.evaluation)),
            memories="; ".join(map(str, model.memories)),
            datastore=datastore,
            version=__version__,
        )


def _stamp(words: Sequence[str]) -> str:
    """Sizes and dates of a datastore's files: hashing gigabytes would take minutes."""
    found = []
    for path in store_files(words):
        if os.path.exists(path):
            status = os.stat(path)
            found.append(f"{os.path.basename(path)} {status.st_size} {status.st_mtime_ns}")
    return ", ".join(found)
