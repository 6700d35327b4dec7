"""Folders of the machine that a node mounts over, made where they are missing and removed after the last node.

Each node holds a shared lock on one file for as long as it runs, so the exclusive lock says that no node is up, even
after a kill. Removing a folder while another node has something mounted on it would unmount it there.
"""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

PATHS = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers")
LOCK = Path("/run/lock/servepath-node")

HOLD_LOCK = f"exec 9<>{LOCK} && flock --shared 9"
"""The shell command by which a node's first process holds the lock until it dies."""


@contextmanager
def made() -> Iterator[None]:
    """Make the missing folders, and keep them for the length of the block; the node keeps them from then on."""
    with _opened() as file:
        if _is_alone(file):
            missing = [path for path in PATHS if not Path(path).exists()]
            _write(file, sorted({*_read(file), *missing}))
            for path in missing:
                Path(path).mkdir(parents=True)
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def remove() -> None:
    """Remove the folders that nodes made, unless a node is up or somebody else put something there."""
    with _opened() as file:
        if not _is_alone(file):
            return
        for path in _read(file):
            _remove_if_empty(Path(path))
        _write(file, [])


def _opened() -> TextIO:
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    LOCK.touch()
    return LOCK.open("r+")


def _is_alone(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: TextIO) -> list[str]:
    file.seek(0)
    content = file.read()
    return [str(path) for path in json.loads(content)] if content else []


def _write(file: TextIO, paths: list[str]) -> None:
    file.seek(0)
    file.truncate()
    json.dump(paths, file)
    file.flush()


def _remove_if_empty(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        return  # it is gone, or it holds somebody's files
