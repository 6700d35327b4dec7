"""Looks for secrets where none may be: logs, reports, exported images, and what the engine keeps."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CHUNK_BYTES = 8 << 20
PRIVATE_KEYS = ("PRIVATE KEY-----\nM",)
"""The end of a private key's header, and the first letter of all that is DER: programs name the header alone."""


def leaks(secrets: Iterable[str], folder: Path, newer_than_s: float = 0) -> list[str]:
    """Name the files below a folder that hold a secret, as it is or in base64, at any of its three offsets.

    Args:
        secrets: what is looked for.
        folder: where; links are not followed.
        newer_than_s: leave out what was last changed before this time, in seconds since 1970.
    """
    wanted = {form for secret in secrets for form in forms(secret)}
    return sorted(str(path.relative_to(folder)) for path in _files(folder, newer_than_s) if _holds(path, wanted))


def forms(secret: str) -> set[bytes]:
    """A secret as bytes, and what base64 makes of it wherever it begins in a longer text."""
    found = {secret.encode()}
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + secret.encode())
        # The first character that has bits of what comes before, and the last that has bits of what comes after.
        found.add(encoded[4 if offset else 0 :].rstrip(b"=")[: -1 if (offset + len(secret)) % 3 else None])
    return found


def _files(folder: Path, newer_than_s: float) -> Iterator[Path]:
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink() and path.stat().st_mtime >= newer_than_s:
                yield path
        except OSError:
            continue  # an engine that runs removes its own files


def _holds(path: Path, wanted: set[bytes]) -> bool:
    overlap = max(map(len, wanted))
    tail = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                window = tail + chunk
                if any(form in window for form in wanted):
                    return True
                tail = window[-overlap:]
    except OSError:
        return False
    return False
