"""Locks between processes; descriptions that are no descriptions; what is written where."""

import hashlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest

from trime_fairseq.files import (
    Description,
    Lock,
    NotNegative,
    Positive,
    check_writable,
    file_checksum,
    new_temporary,
    open_regular,
    read_json,
    whole_file,
    write_json,
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


def pipe_at(path):
    os.mkfifo(path)


def socket_at(path):
    with socket.socket(socket.AF_UNIX) as end:
        folder, name = os.path.split(path)
        here = os.getcwd()
        os.chdir(folder)  # names of sockets are short
        try:
            end.bind(name)
        finally:
            os.chdir(here)


NOT_FILES = {
    "a folder": os.mkdir,
    "a named pipe": pipe_at,
    "a socket": socket_at,
    "a device": lambda path: os.symlink("/dev/null", path),
    "a symbolic link that leads in a circle": lambda path: os.symlink(path, path),
    "an open file of a process": lambda path: os.symlink("/dev/stdout", path),
}


@pytest.mark.parametrize("kind", NOT_FILES)
def test_what_is_no_file_is_never_replaced(tmp_path, kind):
    path = str(tmp_path / "x.json")
    NOT_FILES[kind](path)
    before = os.lstat(path).st_ino
    with pytest.raises(ValueError, match=re.escape(f"--eval-file {path} is {kind}")):
        check_writable("--eval-file", path)
    with pytest.raises(ValueError, match=re.escape(f"{path} is {kind}")):
        write_json(path, {})
    assert os.lstat(path).st_ino == before
    assert os.listdir(tmp_path) == ["x.json"]


def test_devices_stay_devices():
    for path in ("/dev/null", "/dev/full"):
        with pytest.raises(ValueError, match=f"--output {path} is a device, no regular file: choose another"):
            check_writable("--output", path)
        with pytest.raises(ValueError, match=f"{path} is a device"):
            write_json(path, {})
        assert stat.S_ISCHR(os.stat(path).st_mode)


def test_written_through_links(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "there.json").write_text("1")
    os.symlink("far/there.json", tmp_path / "first")
    os.symlink("first", tmp_path / "second")
    os.symlink("far/new.json", tmp_path / "new")
    for name, target in (("second", "there.json"), ("new", "new.json")):
        check_writable("--eval-file", str(tmp_path / name))
        write_json(str(tmp_path / name), [name])
        assert json.loads((tmp_path / "far" / target).read_text()) == [name]
        assert (tmp_path / name).is_symlink()
    # Under a name that nobody chose, the link was planted.
    write_json(str(tmp_path / "second"), [2], follow_links=False)
    assert not (tmp_path / "second").is_symlink()
    assert json.loads((tmp_path / "far" / "there.json").read_text()) == ["second"]


@pytest.mark.parametrize("path", ["{}/", "", "{}/x/.."])
def test_paths_that_name_no_file(tmp_path, path):
    with pytest.raises(ValueError, match="--eval-file .* a folder"):
        check_writable("--eval-file", path.format(tmp_path))


@pytest.mark.parametrize("path", ["/proc/x.json", "{}/file/x.json"])
def test_places_where_nothing_can_be_written(tmp_path, path):
    (tmp_path / "file").touch()
    path = path.format(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"--eval-file {path}: cannot be written there (")):
        check_writable("--eval-file", path)


def test_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    path = str(tmp_path / "x.json")
    write_json(path, 1)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ValueError, match=re.escape(f"--eval-file {path}: cannot be written there (No space")):
        check_writable("--eval-file", path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        write_json(path, 2)
    assert os.listdir(tmp_path) == ["x.json"]
    assert read_json(path) == 1


KILLED = """
import os, sys
from trime_fairseq.files import whole_file
with whole_file(sys.argv[1]) as file:
    file.write("half")
    file.flush()
    print("there", flush=True)
    sys.stdin.read()
"""


def test_leftovers_of_killed_runs_and_no_others(tmp_path):
    path = str(tmp_path / "a[1].json")
    others = ["a[1].json.tmp", "a[1].json.backup01.tmp", "ba[1].json.0123456789abcdef.tmp"]
    for name in others:
        (tmp_path / name).touch()
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "there\n"
        # What a living process writes stays.
        write_json(path, 1)
        assert len(os.listdir(tmp_path)) == len(others) + 2
    finally:
        child.kill()
        child.communicate()
    write_json(path, 2)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a[1].json"])
    assert read_json(path) == 2


def test_names_of_the_largest_length(tmp_path):
    path = str(tmp_path / ("ä" * 125 + ".json"))
    write_json(path, 1)
    assert os.listdir(tmp_path) == [os.path.basename(path)]


def test_temporary_names_cannot_be_guessed(tmp_path):
    names = set()
    for _ in range(3):
        file, name = new_temporary(str(tmp_path / "x"))
        os.close(file)
        names.add(name)
    assert len(names) == 3


def test_file_tells_its_name_while_it_is_written(tmp_path):
    with whole_file(str(tmp_path / "x")) as file:
        file.write("half")
        file.flush()
        assert open(file.name).read() == "half"
        assert os.path.dirname(file.name) == str(tmp_path)
    assert os.listdir(tmp_path) == ["x"]


def test_file_for_colleagues(tmp_path):
    umask = os.umask(0o027)
    try:
        write_json(str(tmp_path / "x"), 1)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(os.stat(tmp_path / "x").st_mode) == 0o640


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_lacks(tmp_path, number):
    with pytest.raises(ValueError, match="x.json is not written"):
        write_json(str(tmp_path / "x.json"), {"a": [number]})
    assert os.listdir(tmp_path) == []


def test_planted_links_are_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    os.symlink(victim, tmp_path / "link")
    os.link(victim, tmp_path / "hard")
    os.symlink(tmp_path / "created", tmp_path / "dangling")
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("link", "is a symbolic link, which is not followed: remove it"),
        ("dangling", "is a symbolic link, which is not followed: remove it"),
        ("hard", "has a second name"),
        ("pipe", "is a named pipe, no regular file: remove it"),
        (".", "no regular file: remove it"),
    ):
        for attempt in (
            lambda path: open_regular(path, os.O_RDWR | os.O_CREAT),
            lambda path: Lock(path).acquire(),
        ):
            with pytest.raises(ValueError, match=message):
                attempt(str(tmp_path / name))
    assert victim.read_text() == "mine"
    assert not (tmp_path / "created").exists()


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
