"""The identity of a layer's files, without reading them: whether they are what they were when a digest was computed."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from servepath.errors import InputError
from servepath.modelcar.store import canonical_json

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from servepath.modelcar.content import PiecedContent

SETTLED_NS = 2_000_000_000
"""A file changed this shortly before it was looked at may be changed again without a new time stamp (the coarsest
file systems count 2 s), so nothing is remembered of it; git's "racily clean" rule."""


class Fingerprint(Struct, frozen=True):
    """What identifies a layer's bytes.

    Attributes:
        key: hexadecimal SHA-256 over the tar's headers and, of each file, device, inode, size, mtime and ctime. No
            program can set a ctime back, so an edit with restored size and mtime shows.
        is_settled: whether every file had been left alone for a while.
    """

    key: str
    is_settled: bool


def fingerprint_of(content: PiecedContent, form: str = "") -> Fingerprint:
    """Look at a content's files.

    Args:
        content: what the layer is made of.
        form: how its bytes are stored, such as compressed by which program; empty for as they are.

    Raises:
        InputError: a file is not there.
    """
    looked_ns = time.time_ns()
    seen: dict[Path, os.stat_result] = {}
    facts: list[object] = [form]
    for piece in content.pieces():
        if isinstance(piece, bytes):
            facts.append(hashlib.sha256(piece).hexdigest())
            continue
        try:
            stat = seen.setdefault(piece.path, piece.path.stat())
        except OSError as error:
            raise InputError(f"cannot read: {error.strerror}", where=str(piece.path)) from error
        identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        facts.append([*identity, piece.offset, piece.size_bytes])
    latest_ns = max((max(stat.st_mtime_ns, stat.st_ctime_ns) for stat in seen.values()), default=0)
    key = hashlib.sha256(canonical_json(facts)).hexdigest()
    return Fingerprint(key, is_settled=latest_ns < looked_ns - SETTLED_NS)
