"""Archives that are damaged or hostile: one error each, and nothing that looks complete."""

import os
import random
import sys
import tarfile
import zipfile

import pytest

from tests.bm25.small import largest_file
from tests.commands import ROOT
from tests.fuzzing.mutations import damage

sys.path.insert(0, str(ROOT / "scripts"))

import archives  # noqa: E402


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
        path.write_bytes(damage(path.name, whole, draw)[1])
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


def test_full_disk(tmp_path):
    """The archive is not to blame."""
    path = zipped(tmp_path / "enwik8.zip", os.urandom(9000))
    with largest_file(5000), pytest.raises(OSError, match="File too large"):
        archives.unpack(path, [("enwik8", tmp_path / "raw")], 100_000)
    assert path.exists()
    assert not (tmp_path / "raw").exists()
