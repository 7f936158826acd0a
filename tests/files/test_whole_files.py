"""What is written where: whole files, links, what is no file, leftovers of killed runs."""

import json
import os
import re
import socket
import stat
import subprocess
import sys

import pytest

from trime_fairseq.files import (
    Lock,
    check_writable,
    new_temporary,
    open_regular,
    read_json,
    whole_file,
    write_json,
)


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
