"""fairseq's dict.txt, read without fairseq."""

import os

from .datastore import DatastoreError

# What fairseq puts before the symbols of the file.
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_OVERWRITE = " #fairseq:overwrite"


def read_symbols(path: str) -> list[str]:
    """The symbols of a dictionary, by token.

    Args:
        path: a ``dict.txt``, or the folder DATA that holds it.

    Raises:
        DatastoreError: if it is none.
    """
    file = os.path.join(path, "dict.txt") if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise DatastoreError(
            f"`dictionary` {path}: there is no {file} (of translations, name DATA/dict.LANGUAGE.txt)"
        )
    symbols = list(_SPECIAL)
    with open(file, encoding="utf-8") as lines:
        try:
            for line in lines:
                word, _, count = line.rstrip().removesuffix(_OVERWRITE).rpartition(" ")
                int(count)
                symbols.append(word)
        except ValueError as error:
            raise DatastoreError(
                f"`dictionary` {file}: line {len(symbols) - len(_SPECIAL) + 1} is not a symbol and its count"
            ) from error
    return symbols
