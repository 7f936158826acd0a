"""Files out of zip and tar archives that come from the net: regular ones only, and of a bounded size."""

import gzip
import os
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trime_fairseq.files import whole_file  # noqa: E402

_CHUNK = 1 << 20
# Text and models never become this many times larger when they are unpacked.
_LARGEST_RATIO = 100
_MOST_MEMBERS = 100_000
# A header of a tar file that is read at once; some hold long names.
_LARGEST_READ = 64 << 20
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2}

Member = zipfile.ZipInfo | tarfile.TarInfo


class ArchiveError(RuntimeError):
    """The archive is damaged, or does not hold what is wanted; names it."""


def unpack(
    archive: Path,
    targets: Sequence[tuple[str, Path]],
    most: int,
    check: Callable[[IO[bytes]], None] = lambda file: None,
) -> list[Path]:
    """Writes members of an archive to files, each of which appears when it is complete.

    Args:
        archive: a zip file, if its name ends so, else a tar file compressed by gzip.
        targets: for each member, the end of its name in the archive, and the file to write.
        most: bytes of a member that are too many.
        check: gets each file, from its beginning, before it appears; raises ArchiveError if it is not what it
            should be.

    Raises:
        ArchiveError: if the archive is damaged, encrypted or of an unknown compression, or lacks a member; if
            one is no regular file, there twice, or larger than it can be.
        OSError: if the disk is full or cannot be written.
    """
    most = min(most, _CHUNK + _LARGEST_RATIO * archive.stat().st_size)
    with ExitStack() as opened:
        with _blamed(archive):
            content: zipfile.ZipFile | tarfile.TarFile
            if archive.suffix == ".zip":
                content = opened.enter_context(zipfile.ZipFile(archive))
            else:
                stream = opened.enter_context(_Gzip(archive))
                content = opened.enter_context(tarfile.open(fileobj=stream, mode="r:"))
            members = _members(archive, content, most)
        wanted = [_find(archive, members, name) for name, _ in targets]
        for member in wanted:
            _check_member(archive, member, most)
        for member, (_, target) in zip(wanted, targets):
            _write(archive, content, member, target, most, check)
    return [target for _, target in targets]


class _Gzip(gzip.GzipFile):
    """The bytes of a file compressed by gzip, of which nobody gets gigabytes at once."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_READ:
            raise ArchiveError(f"{self.name} is no tar file: it has a header of {size} bytes")
        return super().read(size)


def _members(archive: Path, content: zipfile.ZipFile | tarfile.TarFile, most: int) -> list[Member]:
    if isinstance(content, zipfile.ZipFile):
        return list(content.infolist())
    found: list[Member] = []
    total = 0
    # A tar file has no list: to find the next member, this one is unpacked.
    for member in content:
        found.append(member)
        total += member.size
        if total > 4 * most or len(found) > _MOST_MEMBERS:
            raise ArchiveError(f"{archive} unpacks to more than it can hold ({total:,} bytes and more)")
    # gzip's checksum comes last.
    for _ in _chunks(archive, content.fileobj, most):
        pass
    return found


def _find(archive: Path, members: list[Member], end: str) -> Member:
    found = [
        member
        for member in members
        # "._NAME" is what macOS adds for its own use.
        if _name(member).rstrip("/").endswith(end) and not Path(_name(member)).name.startswith("._")
    ]
    found = [member for member in found if Path(_name(member)).name == end] or found
    if len(found) != 1:
        raise ArchiveError(f"{archive} holds {f'{len(found)} files' if found else 'no'} {end}")
    return found[0]


def _check_member(archive: Path, member: Member, most: int) -> None:
    where = f"{archive}: {_name(member)}"
    if isinstance(member, tarfile.TarInfo):
        regular, size = member.isreg() and not member.issparse(), member.size
    else:
        # The high half are Unix' permissions and kind, 0 where another system has made the archive.
        kind, size = stat.S_IFMT(member.external_attr >> 16), member.file_size
        regular = not member.is_dir() and kind in (0, stat.S_IFREG)
        if member.flag_bits & 1:
            raise ArchiveError(f"{where} is encrypted")
        if member.compress_type not in _COMPRESSIONS:
            raise ArchiveError(f"{where} is compressed by an unknown method ({member.compress_type})")
    if not regular:
        raise ArchiveError(f"{where} is no regular file")
    if size > most:
        raise ArchiveError(f"{where} has {size:,} bytes, more than the {most:,} that it can have")


def _write(
    archive: Path,
    content: zipfile.ZipFile | tarfile.TarFile,
    member: Member,
    target: Path,
    most: int,
    check: Callable[[IO[bytes]], None],
) -> None:
    with ExitStack() as opened:
        with _blamed(archive):
            source = opened.enter_context(_open(content, member))
        with whole_file(str(target), "wb") as file:
            for chunk in _chunks(archive, source, most):
                file.write(chunk)
            file.flush()
            with os.fdopen(os.dup(file.fileno()), "rb") as written:
                written.seek(0)
                check(written)


def _open(content: zipfile.ZipFile | tarfile.TarFile, member: Member) -> IO[bytes]:
    if isinstance(content, zipfile.ZipFile):
        return content.open(member)  # type: ignore[arg-type]
    source = content.extractfile(member)  # type: ignore[arg-type]
    if source is None:
        raise ArchiveError(f"{_name(member)} is no regular file")
    return source


def _chunks(archive: Path, source: IO[bytes], most: int) -> Iterator[bytes]:
    # Whatever the archive says about the size.
    left = most
    while True:
        with _blamed(archive):
            chunk = source.read(_CHUNK)
        if not chunk:
            return
        left -= len(chunk)
        if left < 0:
            raise ArchiveError(f"{archive} unpacks to more than {most:,} bytes")
        yield chunk


def _name(member: Member) -> str:
    return member.name if isinstance(member, tarfile.TarInfo) else member.filename


@contextmanager
def _blamed(archive: Path) -> Iterator[None]:
    """Any error of reading is the archive's: zipfile, tarfile and the decompressors raise a dozen kinds."""
    try:
        yield
    except ArchiveError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename and os.fspath(error.filename) == str(archive):
            raise
        raise ArchiveError(f"{archive} is no complete archive: {error or type(error).__name__}") from error
