"""Downloads from servers that send nonsense, break off or change their files."""

import sys

import pytest

from tests.bm25.small import largest_file
from tests.commands import ROOT

from .serving import Quiet, serving

sys.path.insert(0, str(ROOT / "scripts"))

import fetch  # noqa: E402


class Server(Quiet):
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


@pytest.fixture
def server():
    with serving(Server) as running:
        yield running


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


def test_full_disk(tmp_path, server):
    """No other address is tried, and what there is is kept."""
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
