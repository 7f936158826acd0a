"""get_data.sh on small files: downloads, archives, splits, and what it says when something is wrong."""

import dataclasses
import hashlib
import shutil
import sys
import tarfile
import threading
import time
import zipfile

import pytest
from fairseq.data import Dictionary, data_utils

from tests.commands import REFERENCE, ROOT, run

from .serving import Quiet, serving

sys.path.insert(0, str(ROOT / "scripts"))

import enwik8  # noqa: E402
import fetch  # noqa: E402
import get_data  # noqa: E402
import preprocess  # noqa: E402

CONTENT = bytes(range(256)) * 8192


class Server(Quiet):
    """Serves CONTENT under /file, with ranges; /broken ends early; nothing else exists."""

    def do_GET(self):
        if self.path not in ("/file", "/broken"):
            self.send_error(404)
            return
        begin = int(self.headers["Range"][6:-1]) if "Range" in self.headers else 0
        self.server.asked.append((self.path, begin))
        if begin >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(CONTENT) - begin))
        self.end_headers()
        self.wfile.write(CONTENT[begin : 1_500_000 if self.path == "/broken" else None])


@pytest.fixture
def server():
    with serving(Server) as running:
        yield running


def test_mirrors_in_turn_and_an_interrupted_download(server, tmp_path):
    path = tmp_path / "deep" / "archive.zip"
    with pytest.raises(fetch.FetchError, match="/gone: .*404(.|\n)*/broken: .*run again to continue"):
        fetch.fetch([f"{server.address}/gone", f"{server.address}/broken"], path)
    assert not path.exists()
    have = path.with_name("archive.zip.part").stat().st_size
    assert 0 < have < len(CONTENT)
    wanted = hashlib.sha256(CONTENT).hexdigest()
    assert fetch.fetch([f"{server.address}/file"], path, wanted).read_bytes() == CONTENT
    assert server.asked[-1] == ("/file", have)
    fetch.fetch([f"{server.address}/gone"], path)  # it is there
    assert not list(path.parent.glob("*.part"))


def test_complete_part_is_not_loaded_again(server, tmp_path):
    (tmp_path / "archive.zip.part").write_bytes(CONTENT)
    path = fetch.fetch(
        [f"{server.address}/file"], tmp_path / "archive.zip", hashlib.sha256(CONTENT).hexdigest()
    )
    assert path.read_bytes() == CONTENT
    assert server.asked == [("/file", len(CONTENT))]


def test_wrong_content_is_thrown_away(server, tmp_path):
    with pytest.raises(fetch.FetchError, match="wrong content: its sha256"):
        fetch.fetch([f"{server.address}/file"], tmp_path / "archive.zip", "0" * 64)
    assert not list(tmp_path.iterdir())


def test_bytes_become_codes(tmp_path):
    source = tmp_path / "enwik8"
    source.write_bytes(b"a\n\n\xff0" + b"\xc3\xa4\n" + b" \x00")
    parts = [(tmp_path / name, size) for name, size in [("train.txt", 5), ("valid.txt", 3), ("test.txt", 2)]]
    enwik8.split_bytes(source, parts)
    assert [path.read_text().split("\n") for path, _ in parts] == [
        ["97 ", "", "255 48 "],
        ["195 164 ", ""],
        ["32 0 "],
    ]
    with pytest.raises(ValueError, match="ends 1 bytes before"):
        enwik8.split_bytes(source, [(tmp_path / "train.txt", 11)])


@pytest.fixture
def small_sets(monkeypatch):
    """Data sets of the same form that are small."""
    monkeypatch.setattr(get_data, "WIKITEXT_LINES", (4, 2, 1))
    monkeypatch.setattr(get_data, "ENWIK8_BYTES", (600, 30, 30))
    for name, data_set in get_data.DATA_SETS.items():
        archives = tuple(dataclasses.replace(archive, sha256=None) for archive in data_set.archives)
        monkeypatch.setitem(get_data.DATA_SETS, name, dataclasses.replace(data_set, archives=archives))


WIKITEXT = {
    "wiki.train.tokens": " \n = Title = \n \n the <unk> of the house the end \n",
    "wiki.valid.tokens": " \n the house \n",
    "wiki.test.tokens": " the end \n",
}


def tokens_of(folder, split):
    """Number of tokens that fairseq reads, and its dictionary."""
    dictionary = Dictionary.load(str(folder / "dict.txt"))
    lines = data_utils.load_indexed_dataset(str(folder / split), dictionary)
    return [[dictionary[token] for token in line.tolist()] for line in lines]


@pytest.mark.parametrize("form", ["folder", "zip", "tar.gz"])
def test_forms_of_wikitext(tmp_path, small_sets, form):
    given = wikitext(tmp_path, form)
    files = get_data.members("wikitext-103", tmp_path / "raw", given)
    assert [path.read_text() for path in files] == list(WIKITEXT.values())


def wikitext(folder, form):
    """Where it lies, as --from takes it."""
    source = folder / "source" / "wikitext-103"
    source.mkdir(parents=True)
    for name, text in WIKITEXT.items():
        (source / name).write_text(text)
    if form == "folder":
        return source
    given = folder / "archives"
    given.mkdir()
    if form == "zip":
        with zipfile.ZipFile(given / "wikitext-103-v1.zip", "w") as archive:
            for name in WIKITEXT:
                archive.write(source / name, f"wikitext-103/{name}")
    else:
        with tarfile.open(given / "wikitext-103.tar.gz", "w:gz") as archive:
            archive.add(source, "wikitext-103")
    return given


@pytest.mark.slow
@pytest.mark.process
def test_wikitext(tmp_path, small_sets, capsys):
    words = ["wikitext-103", "--from", str(wikitext(tmp_path, "zip")), "--workers", "1"]
    get_data.main([*words, "--data-bin", str(tmp_path / "data-bin")])
    folder = tmp_path / "data-bin" / "wikitext-103"
    assert tokens_of(folder, "train") == [
        ["</s>"],
        ["=", "Title", "=", "</s>"],
        ["</s>"],
        ["the", "<unk>", "of", "the", "house", "the", "end", "</s>"],
    ]
    assert tokens_of(folder, "test") == [["the", "end", "</s>"]]
    capsys.readouterr()
    get_data.main(["wikitext-103", "--data-bin", str(tmp_path / "data-bin")])
    assert "is complete" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.process
def test_enwik8(tmp_path, small_sets):
    (tmp_path / "enwik8").write_bytes((b"one page\n" * 100)[:660])
    get_data.main(["enwik8", "--from", str(tmp_path), "--data-bin", str(tmp_path / "d"), "--workers", "1"])
    folder = tmp_path / "d" / "enwik8"
    train = tokens_of(folder, "train")
    assert sum(map(len, train)) == 600 + 1  # it ends within a line
    assert train[0] == [*map(str, b"one page"), "</s>"]
    assert sum(map(len, tokens_of(folder, "valid"))) == 30  # and this one with a line


def test_what_is_wrong(tmp_path, small_sets, monkeypatch):
    def refused(*arguments):
        with pytest.raises(SystemExit) as error:
            get_data.main([*arguments, "--data-bin", str(tmp_path / "d")])
        return str(error.value)

    (tmp_path / "empty").mkdir()
    message = refused("enwik8", "--from", str(tmp_path / "empty"))
    assert "none of enwik8.zip, enwik8 is there" in message
    (tmp_path / "enwik8").write_bytes(b"short")
    assert "has 5 bytes, not the 660 of enwik8" in refused("enwik8", "--from", str(tmp_path))
    for name in WIKITEXT:
        (tmp_path / name).write_text("a\n")
    assert "has 1 lines, not the 4 of WikiText-103" in refused("wikitext-103", "--from", str(tmp_path))

    nowhere = get_data.DataSet(
        (get_data.Archive("enwik8.zip", ("file:///gone",)),), ("enwik8",), get_data.enwik8
    )
    monkeypatch.setitem(get_data.DATA_SETS, "enwik8", nowhere)
    message = refused("enwik8")
    assert "file:///gone" in message
    assert "pass --from DIR" in message
    with zipfile.ZipFile(tmp_path / "empty" / "enwik8.zip", "w") as archive:
        archive.writestr("other", "x")
    assert "holds no enwik8" in refused("enwik8", "--from", str(tmp_path / "empty"))
    (tmp_path / "empty" / "enwik8.zip").write_bytes(b"PK")
    assert "is no complete archive" in refused("enwik8", "--from", str(tmp_path / "empty"))
    # A folder of the file's name is no file.
    (tmp_path / "folder" / "enwik8").mkdir(parents=True)
    assert "none of enwik8.zip, enwik8 is there" in refused("enwik8", "--from", str(tmp_path / "folder"))


def test_page_in_place_of_an_archive(tmp_path, small_sets, monkeypatch):
    """What a parked domain sends is thrown away, and the next archive tried."""
    (tmp_path / "page").write_text("<html>")
    with tarfile.open(tmp_path / "good", "w:gz") as archive:
        for name, text in WIKITEXT.items():
            (tmp_path / name).write_text(text)
            archive.add(tmp_path / name, name)
    archives = [("page.zip", "page"), ("page.tar.gz", "page"), ("good.tar.gz", "good")]
    found = tuple(get_data.Archive(name, ((tmp_path / path).as_uri(),)) for name, path in archives)
    data_set = get_data.DataSet(found, tuple(WIKITEXT), get_data.wikitext)
    monkeypatch.setitem(get_data.DATA_SETS, "wikitext-103", data_set)
    raw = tmp_path / "raw"
    files = get_data.members("wikitext-103", raw, None)
    assert [path.read_text() for path in files] == list(WIKITEXT.values())
    assert not list(raw.glob("page*"))


@pytest.fixture
def preprocessed(monkeypatch):
    """How often fairseq-preprocess would have been run; in its place the reference text is copied, slowly."""
    runs = []

    def copy(texts, part, workers, *of_pairs):
        runs.append(workers)
        time.sleep(0.2)
        for name in (f"{split}.{kind}" for split in get_data.SPLITS for kind in ("bin", "idx")):
            shutil.copy(REFERENCE / "data" / "word" / name, part)
        shutil.copy(REFERENCE / "data" / "word" / "dict.txt", part)

    monkeypatch.setattr(preprocess, "_run", copy)
    return runs


def test_two_at_once(tmp_path, small_sets, preprocessed, capsys):
    """One makes the data, the other says that it waits."""
    words = ["wikitext-103", "--from", str(wikitext(tmp_path, "folder")), "--data-bin", str(tmp_path / "d")]
    left = tmp_path / "d" / "wikitext-103" / "part-of-a-killed-run"
    left.mkdir(parents=True)
    (left / "train.bin").write_text("half")
    threads = [threading.Thread(target=get_data.main, args=([*words, "--workers", "3"],)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert preprocessed == [3]
    said = capsys.readouterr().out
    assert f"another get_data.sh makes {tmp_path}/d/wikitext-103: waiting for it" in said
    assert f"written to {tmp_path}/d/wikitext-103" in said
    assert f"{tmp_path}/d/wikitext-103 is complete" in said
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["wikitext-103"]
    assert sorted(path.name for path in left.parent.iterdir() if path.is_dir()) == ["raw_data"]


def test_damaged_data_are_made_again(tmp_path, small_sets, preprocessed):
    words = ["wikitext-103", "--from", str(wikitext(tmp_path, "folder")), "--data-bin", str(tmp_path / "d")]
    get_data.main(words)
    whole = {
        path: path.read_bytes() for path in (tmp_path / "d" / "wikitext-103").iterdir() if path.is_file()
    }
    assert len(whole) == 7
    for path in whole:
        path.write_bytes(b"")
    get_data.main(words)
    assert len(preprocessed) == 2
    assert {path: path.read_bytes() for path in whole} == whole


def test_what_cannot_be_written(tmp_path, small_sets, preprocessed, monkeypatch):
    words = ["wikitext-103", "--from", str(wikitext(tmp_path, "folder"))]
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit, match=r"^get_data.sh: .*file.*: .*choose another folder with --data-bin"):
        get_data.main([*words, "--data-bin", str(tmp_path / "file")])

    def half(texts, part, workers, *of_pairs):
        (part / "train.bin").write_text("half")

    monkeypatch.setattr(preprocess, "_run", half)
    with pytest.raises(SystemExit, match="has left files that are not complete: is the disk full"):
        get_data.main([*words, "--data-bin", str(tmp_path / "d")])
    assert [path.name for path in (tmp_path / "d" / "wikitext-103").iterdir()] == ["raw_data"]


@pytest.mark.parametrize(
    "flag", ["--workers=0", "--workers=-1", "--workers=1.5", "--workers=1000000000000", "--sha256=12"]
)
def test_flags_that_are_no_numbers(flag, capsys):
    with pytest.raises(SystemExit):
        get_data.main(["enwik8", flag])
    said = capsys.readouterr().err.splitlines()[-1]
    assert ("is no sha256" if "sha" in flag else "is no whole number from 1 to 1,024") in said


def test_known_archives_are_verified(tmp_path):
    with zipfile.ZipFile(tmp_path / "enwik8.zip", "w") as archive:
        archive.writestr("enwik8", "x")
    with pytest.raises(get_data.DataError, match="its sha256 is another"):
        get_data.members("enwik8", tmp_path / "raw", tmp_path)


def test_shell_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHON", sys.executable)
    output = run("bash", ROOT / "get_data.sh", "wikitext-103", "--from", tmp_path, cwd=tmp_path, fails=True)
    assert f"--from {tmp_path}: none of wikitext-103-v1.zip" in output
    assert "invalid choice" in run("bash", ROOT / "get_data.sh", "wikitext-2", cwd=tmp_path, fails=True)
