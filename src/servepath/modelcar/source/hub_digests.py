"""Recompute the digests of what was downloaded: the Hub's cache names every file by the digest that the Hub gave.

A big file's is its SHA-256, a small one's that of a git blob. A file is read once: what was found right is noted beside
the cache's blobs, with its size and time, and read again only when those changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import TYPE_CHECKING

from servepath.errors import InputError
from servepath.modelcar.content import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOTES = "servepath-verified.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_BLOB = re.compile(r"[0-9a-f]{40}")


def check_snapshot(snapshot: Path) -> None:
    """Check every file of `REPO/snapshots/COMMIT` against its name in `REPO/blobs`.

    Raises:
        InputError: a file has other bytes than the Hub said.
    """
    notes_path = snapshot.parent.parent / NOTES
    notes = _read(notes_path)
    blobs = sorted({path.resolve() for path in snapshot.rglob("*") if path.is_file()})
    for blob in blobs:
        status = blob.stat()
        seen = [status.st_size, status.st_mtime_ns]
        if notes.get(blob.name) == seen:
            continue
        digest = _digest_like(blob)
        if digest and digest != blob.name:
            raise InputError(
                f"a downloaded file has other bytes than the Hub said: they hash to {digest}",
                where=_names(snapshot, blob),
                expected=blob.name,
                next_command=f"rm {blob}, then download again",
            )
        notes[blob.name] = seen
    _write(notes_path, notes)


def _digest_like(blob: Path) -> str:
    """Return the digest of the kind that the blob is named by; empty if it is named by something else."""
    if _SHA256.fullmatch(blob.name):
        sha256 = hashlib.sha256()
        for chunk in _chunks(blob):
            sha256.update(chunk)
        return sha256.hexdigest()
    if _GIT_BLOB.fullmatch(blob.name):
        sha1 = hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
        for chunk in _chunks(blob):
            sha1.update(chunk)
        return sha1.hexdigest()
    return ""


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _names(snapshot: Path, blob: Path) -> str:
    return ", ".join(sorted(str(path) for path in snapshot.rglob("*") if path.resolve() == blob))


def _read(path: Path) -> dict[str, list[int]]:
    try:
        notes = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _write(path: Path, notes: dict[str, list[int]]) -> None:
    partial = path.with_name(f".{NOTES}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(notes, sort_keys=True))
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)  # a cache that is read only is read again next time
