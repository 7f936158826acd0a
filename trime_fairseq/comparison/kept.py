"""Results that are kept in JSON files, and taken from there only if they are of the same comparison."""

import json
import logging
import os
from dataclasses import asdict, dataclass
from typing import Any

from ..files import Description, read_json, text_hash, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity(Description):
    """What the results of a checkpoint depend on."""

    checkpoint_hash: str
    dictionary_hash: str
    tune_hash: str
    test_hash: str
    train_hash: str | None
    tune: str
    test: str
    flags: str
    memories: str
    datastore: str
    version: str


def keep(path: str, identity: Identity, content: Any) -> None:
    """Writes a dataclass, as a whole or not at all."""
    values = asdict(content)
    write_json(path, {"identity": asdict(identity), "checksum": _checksum(values), "result": values})


def kept(path: str, identity: Identity) -> Any:
    """What :func:`keep` wrote, as plain JSON.

    None, with a log line that says why, if the file is not there, damaged, or not of ``identity``.
    """
    if not os.path.exists(path):
        return None
    try:
        content = read_json(path)
        known = Identity(**content["identity"])
        if content["checksum"] != _checksum(content["result"]):
            raise ValueError("its checksum does not agree")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        logger.warning(f"TRIME: {path} is damaged ({error}); it is measured again")
        return None
    differing = identity.differences(known)
    if differing:
        logger.warning(
            f"TRIME: {path} is of another comparison (now / then: {differing}); it is measured again"
        )
        return None
    return content["result"]


def _checksum(content: Any) -> str:
    return text_hash(json.dumps(content, sort_keys=True))
