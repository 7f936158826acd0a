"""Locks between processes; descriptions that are no descriptions; JSON with bounds; checksums."""

import hashlib
import json
import os
import re
import signal
import time
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest

from trime_fairseq.files import (
    Description,
    Lock,
    NotNegative,
    Positive,
    file_checksum,
    read_json,
)
from trime_fairseq.files.hashes import BLOCK


def test_children_of_a_killed_process_hold_no_lock(tmp_path):
    path = str(tmp_path / "lock")
    ready, tell = os.pipe()
    parent = os.fork()
    if not parent:
        # Without returning to pytest, whatever happens.
        try:
            assert Lock(path).acquire()
            if not os.fork():
                os.write(tell, b"%d" % os.getpid())
            time.sleep(60)
        finally:
            os._exit(0)
    orphan = int(os.read(ready, 20))
    try:
        lock = Lock(path)
        assert not lock.acquire()
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        os.kill(orphan, 0)  # it is there still
        assert lock.acquire()
    finally:
        os.kill(orphan, signal.SIGKILL)


class Unusable(ValueError):
    pass


@dataclass(frozen=True)
class Thing(Description):
    error: ClassVar[type[ValueError]] = Unusable

    rows: Positive
    gap: NotNegative = 0
    name: str = "thing"
    note: str | None = None
    size: Positive | None = None
    seconds: float = 0.0
    done: bool = False
    kind: Annotated[str, ("old", "new")] = "old"
    share: Annotated[int, 0, 100] = 0


def load(folder, content):
    path = folder / "thing.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Thing.load(str(path), "does not describe a thing")


def test_description_comes_back(tmp_path):
    thing = Thing(rows=3, note="x", size=2, seconds=0.5, done=True)
    thing.save(str(tmp_path / "saved.json"))
    assert Thing.load(str(tmp_path / "saved.json"), "") == thing
    # Fields of a later version are left out, those of an earlier one may be missing; 1 is a number, too.
    assert load(tmp_path, '{"format_version": 1, "rows": 3, "seconds": 1, "later": []}') == Thing(
        3, seconds=1
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": "3"}, "rows must be an integer, not '3'"),
        ({"rows": 3.0}, "rows must be an integer, not 3.0"),
        ({"rows": True}, "rows must be an integer, not True"),
        ({"rows": None}, "rows must be an integer, not None"),
        ({"rows": [3]}, "rows must be an integer, not [3]"),
        ({"rows": 0}, "rows must be at least 1, not 0"),
        ({"rows": -(10**18)}, "rows must be at least 1"),
        ({"rows": 2**63}, "rows must be an integer"),
        ({"rows": 10**400}, "rows must be an integer"),
        ({"gap": -1}, "gap must be at least 0, not -1"),
        ({"size": 0}, "size must be at least 1, not 0"),
        ({"size": "1"}, "size must be an integer, not '1'"),
        ({"name": None}, "name must be a text, not None"),
        ({"name": 1}, "name must be a text, not 1"),
        ({"note": 1}, "note must be a text, not 1"),
        ({"seconds": "1"}, "seconds must be a number, not '1'"),
        ({"seconds": float("nan")}, "seconds must be a number, not nan"),
        ({"seconds": float("inf")}, "seconds must be a number, not inf"),
        ({"seconds": 1e300}, "seconds must be a number"),
        ({"kind": "other"}, "kind must be old or new, not 'other'"),
        ({"kind": 1}, "kind must be a text, not 1"),
        ({"share": 101}, "share must be at most 100, not 101"),
        ({"format_version": 0}, "format_version must be at least 1, not 0"),
        ({"done": "false"}, "done must be true or false, not 'false'"),
        ({"done": 1}, "done must be true or false, not 1"),
        ({"format_version": "1"}, "format_version must be an integer, not '1'"),
        ({"format_version": None}, "format_version must be an integer, not None"),
        ({"format_version": True}, "format_version must be an integer, not True"),
        ({"format_version": {}}, "format_version must be an integer, not {}"),
    ],
)
def test_fields_of_another_type_or_out_of_bounds(tmp_path, values, message):
    content = json.dumps({"format_version": 1, "rows": 3, **values})
    with pytest.raises(Unusable, match=re.escape(f"{tmp_path}/thing.json: {message}")) as caught:
        load(tmp_path, content)
    assert len(str(caught.value)) < len(str(tmp_path)) + 120
    assert "\n" not in str(caught.value)


def test_null_where_it_may_be(tmp_path):
    assert load(tmp_path, '{"format_version": 1, "rows": 3, "note": null, "size": null}') == Thing(3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no JSON file"),
        ("{", "is no JSON file"),
        (b"\xff\xfe\x00", "is no JSON file"),
        ("[" * 100_000, "is no JSON file"),
        ('{"format_version": 1, "rows": ' + "[" * 100_000 + "]" * 100_000 + "}", "is no JSON file"),
        ('{"format_version": 1, "rows": 1' + "0" * 5000 + "}", "is no JSON file"),
        ('{"format_version": 1, "rows": 3, "note": "' + "x" * 2**20 + '"}', "does not describe a thing"),
        ('{"format_version": 1, "rows": 3, "rows": 4}', "is no JSON file: 'rows' is there twice"),
        ("null", "does not describe a thing"),
        ("[1]", "does not describe a thing"),
        ("{}", "does not describe a thing"),
        ('{"rows": 3}', "does not describe a thing"),
        ('{"format_version": 1}', "does not describe a thing"),
        (
            '{"format_version": 99, "rows": 3}',
            "has format 99, this version reads up to 1: update trime_fairseq",
        ),
    ],
)
def test_files_that_are_no_descriptions(tmp_path, content, message):
    with pytest.raises(Unusable, match=re.escape(f"{tmp_path}/thing.json {message}")):
        load(tmp_path, content)


def test_json_with_bounds(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[" * 50_000 + "]" * 50_000)
    with pytest.raises(ValueError, match="x.json is no JSON file: it is nested too deeply"):
        read_json(str(path))
    with pytest.raises(ValueError, match="x.json has 100,000 bytes, 99,999 are the most"):
        read_json(str(path), 99_999)
    os.truncate(path, 2**40)  # nothing of it is read
    with pytest.raises(ValueError, match="x.json has 1,099,511,627,776 bytes"):
        read_json(str(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="x.json is a named pipe"):
        read_json(str(path))


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_checksum_is_of_digests_of_blocks(tmp_path, size):
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, size)
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(b"\1" if size else b"")
    content, seen = path.read_bytes(), []
    digests = [hashlib.sha256(content[i : i + BLOCK]).digest() for i in range(0, size, BLOCK)]
    expected = hashlib.sha256(b"".join(digests)).hexdigest()
    assert file_checksum(str(path), progress=seen.append) == expected
    assert sum(seen) == size
