"""Archives and downloads that are damaged or hostile: one error each, and nothing that looks complete."""

import http.server
import io
import os
import random
import sys
import tarfile
import threading
import zipfile

import pytest

from tests.bm25.small import largest_file
from tests.commands import REFERENCE, ROOT
from tests.mutations import mutated

sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "run_pretrained")]

import archives  # noqa: E402
import evaluate  # noqa: E402
import fetch  # noqa: E402
import get_data  # noqa: E402


def zipped(path, content=b"text", name="enwik8", kind=0, method=zipfile.ZIP_DEFLATED):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (kind | 0o644) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, content, method)
    return path


def edited(path, where, value):
    """With a byte of the local and of the central header of the only member changed."""
    content = bytearray(path.read_bytes())
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        content[content.index(signature) + where + shift] = value
    path.write_bytes(content)


def _encrypted(path):
    edited(zipped(path), 6, 1)


def _unknown_method(path):
    edited(zipped(path), 8, 99)


def _lzma(path):
    zipped(path, method=zipfile.ZIP_LZMA)


def _damaged_deflate(path):
    content = bytearray(zipped(path, os.urandom(50) + b"a" * 50_000).read_bytes())
    content[40:60] = b"\xff" * 20
    path.write_bytes(content)


def _wrong_sum(path):
    edited(zipped(path), 14, 1)


def _folder(path):
    zipped(path, b"", "enwik8/")


def _fifo(path):
    zipped(path, b"", kind=0o010000)


def _link(path):
    zipped(path, b"/etc/hostname", kind=0o120000)


def _bomb(path):
    zipped(path, bytes(300_000_000 // 16))


def _twice(path):
    zipped(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("deep/enwik8", "other")


def _cut_off(path):
    path.write_bytes(zipped(path, os.urandom(5000)).read_bytes()[:3000])


def _empty(path):
    path.write_bytes(b"")


ZIPS = [
    (_encrypted, "enwik8 is encrypted"),
    (_unknown_method, "compressed by an unknown method"),
    (_lzma, "compressed by an unknown method"),
    (_damaged_deflate, "is no complete archive"),
    (_wrong_sum, "is no complete archive: Bad CRC"),
    (_folder, "is no regular file"),
    (_fifo, "is no regular file"),
    (_link, "is no regular file"),
    (_bomb, "has 18,750,000 bytes, more than the"),
    (_twice, "holds 2 files enwik8"),
    (_cut_off, "is no complete archive"),
    (_empty, "is no complete archive"),
]


@pytest.mark.parametrize(("make", "message"), ZIPS)
def test_zip_files(tmp_path, make, message):
    make(tmp_path / "enwik8.zip")
    (tmp_path / "raw").mkdir()
    with pytest.raises(archives.ArchiveError, match=message) as error:
        archives.unpack(tmp_path / "enwik8.zip", [("enwik8", tmp_path / "raw" / "enwik8")], 100_000_000)
    assert "enwik8.zip" in str(error.value)
    assert not list((tmp_path / "raw").iterdir())


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        (tarfile.DIRTYPE, 0, "is no regular file"),
        (tarfile.FIFOTYPE, 0, "is no regular file"),
        (tarfile.SYMTYPE, 0, "is no regular file"),
        (tarfile.LNKTYPE, 0, "is no regular file"),
        (tarfile.CHRTYPE, 0, "is no regular file"),
        (tarfile.REGTYPE, 2 << 30, "unpacks to more than it can hold|is no complete archive"),
        (tarfile.XHDTYPE, 1 << 30, "has a header of|is no complete archive"),
    ],
)
def test_tar_files(tmp_path, kind, size, message):
    entry = tarfile.TarInfo("a")
    entry.type, entry.linkname, entry.size = kind, "/etc/hostname", size
    path = tmp_path / "a.tar.gz"
    with archives.gzip.open(path, "wb") as file:
        file.write(entry.tobuf() + bytes(1 << 20))
    with pytest.raises(archives.ArchiveError, match=message):
        archives.unpack(path, [("a", tmp_path / "raw")], 1 << 30)
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_random_damages(tmp_path, form):
    """The right bytes, or one error that names the archive."""
    draw = random.Random(3)
    content, path = draw.randbytes(3000) + b"text " * 2000, tmp_path / f"a.{form}"
    if form == "zip":
        zipped(path, content)
    else:
        (tmp_path / "enwik8").write_bytes(content)
        with tarfile.open(path, "w:gz") as archive:
            archive.add(tmp_path / "enwik8", "deep/enwik8")
    whole = path.read_bytes()
    for number in range(150):
        path.write_bytes(mutated(whole, draw))
        error = None
        try:
            archives.unpack(path, [("enwik8", tmp_path / "raw")], 100_000)
        except archives.ArchiveError as problem:
            error = str(problem)
        if error:
            assert str(path) in error, number
            assert not (tmp_path / "raw").exists(), number
        else:
            assert (tmp_path / "raw").read_bytes() == content, number
            (tmp_path / "raw").unlink()


def test_regular_members(tmp_path):
    """What comes of other systems: no Unix kind, folders before, resource forks of macOS."""
    path = zipped(tmp_path / "a.zip", b"text", "deep/a.txt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/deep/._a.txt", "fork")
    assert archives.unpack(path, [("a.txt", tmp_path / "b")], 4)[0].read_bytes() == b"text"
    with pytest.raises(archives.ArchiveError, match="has 4 bytes, more than the 3"):
        archives.unpack(path, [("a.txt", tmp_path / "c")], 3)


def test_full_disk(tmp_path, server, capsys):
    """Nothing is thrown away, and no other address tried."""
    path = zipped(tmp_path / "enwik8.zip", os.urandom(9000))
    with largest_file(5000), pytest.raises(OSError, match="File too large"):
        archives.unpack(path, [("enwik8", tmp_path / "raw")], 100_000)
    assert path.exists()
    assert not (tmp_path / "raw").exists()
    server.say = (200, {"Content-Length": "9000"}, bytes(9000))
    addresses = [f"{server.address}/a", f"{server.address}/b"]
    with largest_file(5000), pytest.raises(fetch.FetchError, match="a.zip.part cannot be written .*: make r"):
        fetch.fetch(addresses, tmp_path / "a.zip")
    assert server.asked == [("/a", None)]
    assert (tmp_path / "a.zip.part").stat().st_size == 5000
    assert fetch.fetch(addresses, tmp_path / "a.zip").stat().st_size == 9000
    server.say = (200, {"Content-Length": "900000000000000"}, b"")
    with pytest.raises(fetch.FetchError, match=r"needs .* more bytes, the disk has .*: make room"):
        fetch.fetch(addresses, tmp_path / "b.zip", most=10**15)


class Server(http.server.BaseHTTPRequestHandler):
    """Says what it was told to; a part of a file is answered by the second, if there are two."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        say = self.server.say
        code, headers, body = say[bool(asked)] if isinstance(say, list) else say
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *unused):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.asked = []
        running.address = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content-Length": "abc"}, "a Content-Length that is no number of bytes: 'abc'"),
        ({"Content-Length": "-4"}, "a Content-Length that is no number of bytes: '-4'"),
        ({"Content-Length": "9" * 30}, "a Content-Length that is no number"),
        ({"Content-Length": "5000"}, "the file has 5,000 bytes, more than the 1,000 that it can have"),
        ({}, "sent more than the 1,000 bytes that the file can have"),
    ],
)
def test_answers_of_servers(tmp_path, server, headers, message):
    server.say = (200, headers, bytes(2000))
    with pytest.raises(fetch.FetchError, match=message):
        fetch.fetch([f"{server.address}/a"], tmp_path / "a", most=1000)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("told", [{}, {"Content-Range": "bytes */4"}])
def test_a_part_longer_than_the_file(tmp_path, server, told):
    (tmp_path / "a.part").write_bytes(b"longer than it")
    server.say = [(200, {"Content-Length": "4"}, b"file"), (416, told, b"")]
    assert fetch.fetch([f"{server.address}/a"], tmp_path / "a").read_bytes() == b"file"


def test_a_complete_part(tmp_path, server):
    (tmp_path / "a.part").write_bytes(b"file")
    server.say = (416, {"Content-Range": "bytes */4"}, b"")
    assert fetch.fetch([f"{server.address}/a"], tmp_path / "a").read_bytes() == b"file"


def test_another_part_than_asked_for(tmp_path, server):
    (tmp_path / "a.part").write_bytes(b"fi")
    server.say = (206, {"Content-Range": "bytes 0-3/4", "Content-Length": "4"}, b"file")
    with pytest.raises(fetch.FetchError, match="another part of the file"):
        fetch.fetch([f"{server.address}/a"], tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_the_part_is_no_link(tmp_path, server):
    """A file that somebody planted in a folder that several share."""
    (tmp_path / "mine").write_bytes(b"")
    (tmp_path / "a.part").symlink_to(tmp_path / "mine")
    server.say = (200, {}, b"file")
    with pytest.raises(fetch.FetchError, match="a.part cannot be written"):
        fetch.fetch([f"{server.address}/a"], tmp_path / "a")
    assert (tmp_path / "mine").read_bytes() == b""


def test_first_download_counts(tmp_path, server):
    server.say = (200, {}, b"file")
    path = fetch.fetch([f"{server.address}/a"], tmp_path / "a")
    fetch.note_digest(path)
    assert (tmp_path / "a.sha256").read_text() == f"{fetch.digest(path)}  a\n"
    path.write_bytes(b"damaged")
    assert fetch.fetch([f"{server.address}/a"], path).read_bytes() == b"file"
    path.unlink()
    server.say = (200, {}, b"other")
    with pytest.raises(fetch.FetchError, match="that of the first download: .*remove .*a.sha256"):
        fetch.fetch([f"{server.address}/a"], path)
    (tmp_path / "a.sha256").write_text("nonsense")
    with pytest.raises(fetch.FetchError, match="a.sha256 does not begin with a sha256"):
        fetch.fetch([f"{server.address}/a"], path)
    (tmp_path / "a.sha256").unlink()
    assert fetch.fetch([f"{server.address}/a"], path).read_bytes() == b"other"


def test_known_digest_of_a_file_that_is_there(tmp_path, server):
    """Not only what is downloaded now is compared."""
    server.say = (200, {}, b"file")
    (tmp_path / "a").write_bytes(b"fi")
    wanted = "3b9c358f36f0a31b6ad3e14f309c7cf198ac9246e8316f9ce543d5b19ac02b80"
    assert fetch.fetch([f"{server.address}/a"], tmp_path / "a", wanted).read_bytes() == b"file"


CHECKPOINT = REFERENCE / "checkpoints" / "word-trime" / "checkpoint_best.pt"


@pytest.fixture
def released(tmp_path, monkeypatch):
    """Where a released model is downloaded from; the folder of models."""
    monkeypatch.setattr(evaluate, "ADDRESS", (tmp_path / "{}.zip").as_uri().replace("%7B%7D", "{}"))
    return tmp_path / "models"


def release(folder, content):
    return zipped(folder / "tiny-1M.zip", content, "tiny/checkpoint_best.pt")


def test_released_checkpoint(tmp_path, released):
    release(tmp_path, CHECKPOINT.read_bytes())
    path = evaluate.checkpoint("tiny-1M", released)
    assert path.read_bytes() == CHECKPOINT.read_bytes()
    noted = fetch.digest(CHECKPOINT)
    assert (path.parent / "checkpoint_best.pt.sha256").read_text().split()[0] == noted
    assert sorted(path.name for path in released.iterdir()) == ["tiny-1M", "tiny-1M.zip.sha256"]
    evaluate.checkpoint("tiny-1M", released, noted)
    with pytest.raises(evaluate.FetchError, match=f"its sha256 is not {'0' * 64}"):
        evaluate.checkpoint("tiny-1M", released, "0" * 64)
    path.write_bytes(b"other")
    with pytest.raises(evaluate.FetchError, match="is another file than before: .*; remove it to download"):
        evaluate.checkpoint("tiny-1M", released)


def _text(path):
    return b"<html>"


def _weights(path):
    evaluate_torch = pytest.importorskip("torch")
    content = io.BytesIO()
    evaluate_torch.save({"weight": evaluate_torch.zeros(1)}, content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_text, "is no checkpoint"),
        (_weights, "is no checkpoint of fairseq"),
        (lambda path: CHECKPOINT.read_bytes()[:5000], "is no checkpoint"),
        (lambda path: b"", "is no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_gets_no_name(tmp_path, released, content, message):
    """And the next run may have better luck."""
    release(tmp_path, content(tmp_path))
    with pytest.raises(evaluate.FetchError, match=f"{message}.*run again to download it again"):
        evaluate.checkpoint("tiny-1M", released)
    assert not [path for path in released.rglob("*") if path.is_file()]
    release(tmp_path, CHECKPOINT.read_bytes())
    assert evaluate.checkpoint("tiny-1M", released).read_bytes() == CHECKPOINT.read_bytes()


@pytest.mark.parametrize("make", [_encrypted, _unknown_method, _damaged_deflate, _link, _empty])
def test_damaged_release_does_not_stay(tmp_path, released, make):
    released.mkdir()
    make(released / "tiny-1M.zip")
    with pytest.raises(evaluate.FetchError, match="run again to download it again"):
        evaluate.checkpoint("tiny-1M", released)
    release(tmp_path, CHECKPOINT.read_bytes())
    assert evaluate.checkpoint("tiny-1M", released).exists()


def test_seven_empty_files_are_not_complete(tmp_path):
    data = REFERENCE / "data" / "word"
    names = [f"{split}.{kind}" for split in get_data.SPLITS for kind in ("bin", "idx")]
    for name in [*names, "dict.txt"]:
        (tmp_path / name).write_bytes((data / name).read_bytes())
    assert get_data.is_binarised(tmp_path, get_data.SPLITS)
    for name in [*names, "dict.txt"]:
        whole = (tmp_path / name).read_bytes()
        for content in (b"", whole[:-1] if name != "dict.txt" else b"", whole[4:] if ".idx" in name else b""):
            (tmp_path / name).write_bytes(content)
            assert not get_data.is_binarised(tmp_path, get_data.SPLITS), name
        (tmp_path / name).write_bytes(whole)
    assert get_data.is_binarised(tmp_path, get_data.SPLITS)
