"""Downloads a file from the first of several addresses that has it; interrupted, it goes on where it was."""

import hashlib
import http.client
import os
import re
import shutil
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

try:
    from tqdm import tqdm
except ModuleNotFoundError:
    sys.exit(
        f"{sys.executable} lacks the package tqdm: run make first, or set PYTHON to a Python that has it"
    )

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trime_fairseq.files import whole_file  # noqa: E402

_CHUNK = 1 << 20
_TIMEOUT_S = 60
SHA256 = re.compile(r"[0-9a-f]{64}")


class FetchError(RuntimeError):
    """No address had the file; says what happened at each."""


def fetch(addresses: Sequence[str], path: Path, sha256: str | None = None, most: int = 1 << 33) -> Path:
    """The file of the first address that works, at ``path``; one that is there, and the right one, is kept.

    Downloads to ``path.part``, which a later call continues, and renames it when complete. Where no digest is
    known, the file must have that of the first good download, if :func:`note_digest` has noted it.

    Args:
        addresses: http, https or file addresses of the same file.
        sha256: its digest in hexadecimal, where it is known.
        most: bytes that are too many.

    Raises:
        FetchError: if all addresses fail, or the disk is full or cannot be written.
    """
    noted = None if sha256 else read_digest(path)
    if path.exists():
        if not (sha256 or noted) or digest(path) == (sha256 or noted):
            return path
        print(f"{path} has changed: it is downloaded again", file=sys.stderr)
    part = path.with_name(path.name + ".part")
    failures = []
    for address in addresses:
        try:
            _download(address, part, sha256 is not None, most)
            found = digest(part)
            if (sha256 or noted or found) != found:
                part.unlink()
                raise OSError(_wrong(path, found, sha256))
        except (OSError, ValueError, http.client.HTTPException) as error:  # the first includes urllib's
            failures.append(f"  {address}: {error}")
            print(f"{address}: {error}", file=sys.stderr)
            continue
        try:
            os.replace(part, path)
        except OSError as error:
            raise _unwritable(path, error) from error
        return path
    raise FetchError(f"{path.name} could not be downloaded:\n" + "\n".join(failures))


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return digest_of(file)


def digest_of(file: IO[bytes]) -> str:
    """sha256 of the rest of an open file."""
    found = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        found.update(chunk)
    return found.hexdigest()


def noted_at(path: Path) -> Path:
    """Where the digest of a file stands, in the form of the command sha256sum."""
    return path.with_name(path.name + ".sha256")


def read_digest(path: Path) -> str | None:
    """The digest noted for a file; None if there is no note.

    Raises:
        FetchError: if the note is none.
    """
    note = noted_at(path)
    if not note.exists():
        return None
    with open(note, encoding="utf-8", errors="replace") as file:
        words = file.read(1000).split()
    if not words or not SHA256.fullmatch(words[0]):
        raise FetchError(f"{note} does not begin with a sha256 of 64 hexadecimal digits: remove it")
    return words[0]


def note_digest(path: Path, found: str | None = None) -> None:
    """Notes the digest of a file that turned out to be good, unless one is noted."""
    if not noted_at(path).exists():
        with whole_file(str(noted_at(path))) as file:
            file.write(f"{found or digest(path)}  {path.name}\n")


def _wrong(path: Path, found: str, sha256: str | None) -> str:
    if sha256:
        return f"wrong content: its sha256 is not {sha256}"
    return (
        f"its sha256 is {found}, another than that of the first download: if the file may change, remove "
        f"{noted_at(path)}"
    )


def _unwritable(path: Path, error: OSError) -> FetchError:
    return FetchError(
        f"{path} cannot be written ({error.strerror or error}): make room there, or choose another folder, "
        "and run again to continue"
    )


def _download(address: str, part: Path, verified: bool, most: int) -> None:
    """Completes ``part``. Raises OSError, naming what went wrong at the address; FetchError where no other
    address would help."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
    except OSError as error:
        raise _unwritable(part, error) from error
    try:
        response = _ask(address, have)
    except urllib.error.HTTPError as error:
        # Nothing is left to be sent: the file is complete, or longer than that of the address.
        if error.code != 416 or not have:
            raise
        total = re.fullmatch(r"bytes \*/(\d{1,18})", error.headers.get("Content-Range", ""))
        if int(total[1]) == have if total else verified:
            return
        part.unlink()
        have, response = 0, _ask(address, 0)
    with response:
        resumes = getattr(response, "status", None) == 206
        if resumes and not _begins_at(have, response.headers.get("Content-Range")):
            part.unlink()
            raise OSError("it sent another part of the file than it was asked for; run again")
        have = have if resumes else 0
        _receive(response, part, have, _total(response, have, most), most)


def _ask(address: str, have: int) -> Any:
    headers = {"User-Agent": "trime_fairseq", **({"Range": f"bytes={have}-"} if have else {})}
    return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT_S)


def _begins_at(have: int, content_range: str | None) -> bool:
    """Whether it is the part of the file that was asked for; servers need not say."""
    return content_range is None or content_range.strip().startswith(f"bytes {have}-")


def _total(response: Any, have: int, most: int) -> int | None:
    """Bytes of the whole file, where the server tells."""
    length = response.headers.get("Content-Length")
    if length is None:
        return None
    if not re.fullmatch(r"\s*\d{1,18}\s*", length):
        raise OSError(f"it sent a Content-Length that is no number of bytes: {length[:50]!r}")
    if have + int(length) > most:
        raise OSError(f"the file has {have + int(length):,} bytes, more than the {most:,} that it can have")
    return have + int(length)


def _receive(response: Any, part: Path, have: int, total: int | None, most: int) -> None:
    received = have
    try:
        file = _open(part, have > 0)
    except OSError as error:
        raise _unwritable(part, error) from error
    with file, tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem) as progress:
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - have > free:
            raise FetchError(
                f"{part} needs {total - have:,} more bytes, the disk has {free:,}: make room there, or "
                "choose another folder, and run again to continue"
            )
        while chunk := response.read(_CHUNK):
            received += len(chunk)
            if received > most:
                raise OSError(f"it sent more than the {most:,} bytes that the file can have")
            try:
                _write_all(file, chunk)
            except OSError as error:
                raise _unwritable(part, error) from error
            progress.update(len(chunk))
    if total is not None and received != total:
        raise OSError("the connection broke; run again to continue")


def _open(part: Path, resumes: bool) -> Any:
    """The file to go on with, or to begin; not what a link of this name points to."""
    how = os.O_APPEND if resumes else os.O_TRUNC
    number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | how, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(f"{part} is no regular file: remove it")
    # Without a buffer, which would be written once more after an error.
    return os.fdopen(number, "wb", buffering=0)


def _write_all(file: Any, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[file.write(left) :]
