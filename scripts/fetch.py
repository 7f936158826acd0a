"""Downloads a file from the first of several addresses that has it; interrupted, it goes on where it was."""

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

_CHUNK = 1 << 20
_TIMEOUT_S = 60


class FetchError(RuntimeError):
    """No address had the file; says what happened at each."""


def fetch(addresses: Sequence[str], path: Path, sha256: str | None = None) -> Path:
    """The file of the first address that works, at ``path``; nothing is done if it is there.

    Downloads to ``path.part``, which a later call continues, and renames it when complete.

    Args:
        addresses: http, https or file addresses of the same file.
        sha256: its digest in hexadecimal, where it is known.

    Raises:
        FetchError: if all addresses fail.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failures = []
    for address in addresses:
        try:
            _download(address, part)
            if sha256 and digest(part) != sha256:
                part.unlink()
                raise OSError(f"wrong content: its sha256 is not {sha256}")
        except (OSError, http.client.HTTPException) as error:  # the former includes urllib's
            failures.append(f"  {address}: {error}")
            print(f"{address}: {error}", file=sys.stderr)
            continue
        os.replace(part, path)
        return path
    raise FetchError(f"{path.name} could not be downloaded:\n" + "\n".join(failures))


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _download(address: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "trime_fairseq"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(address, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to be sent
            return
        raise
    with response:
        resumes = getattr(response, "status", None) == 206
        have = have if resumes else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            open(part, "ab" if resumes else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem) as progress,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
    if total is not None and part.stat().st_size != total:
        raise OSError("the connection broke; run again to continue")
