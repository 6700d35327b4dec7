"""A root file system as image layers."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from servepath.modelcar.image.layers import LayerPlan, Member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Kept as folders without what is in them: mount points, and traces of the machine that built the image.
EMPTY = frozenset({"dev", "proc", "sys", "run", "tmp", "var/tmp", "var/log", "var/cache", "var/lib/apt", "etc/apt"})
LEFT_OUT = frozenset({"etc/hostname", "etc/resolv.conf", "etc/machine-id"})
PYTHON = ("usr/local", "opt")
"""Where everything lies that is not Debian's; it changes with our pins, the base with Debian's updates."""


def plan_image(root: Path) -> tuple[LayerPlan, LayerPlan]:
    """Plan two layers: Debian's files, then Python's packages."""
    return plan_tree(root, lambda name: not _is_python(name)), plan_tree(root, _is_python)


def plan_tree(root: Path, belongs: Callable[[str], bool]) -> LayerPlan:
    """Plan one layer of the files, folders and links below `root` whose relative name `belongs` to it.

    The layer is the same for the same content: sorted, owned by root, dated 1970, devices and sockets left out.
    """
    members = (_member(root, name) for name in _walk(root, PurePosixPath()) if belongs(name))
    return LayerPlan(tuple(member for member in members if member is not None))


def _is_python(name: str) -> bool:
    return any(name == folder or name.startswith(f"{folder}/") for folder in PYTHON)


def _walk(root: Path, folder: PurePosixPath) -> Iterator[str]:
    with os.scandir(root / folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = str(folder / entry.name)
        if name in LEFT_OUT:
            continue
        yield name
        if entry.is_dir(follow_symlinks=False) and name not in EMPTY:
            yield from _walk(root, folder / entry.name)


def _member(root: Path, name: str) -> Member | None:
    path = root / name
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return Member(name, mode=0o777, link=str(path.readlink()))
    if stat.S_ISDIR(status.st_mode):
        return Member(name, mode=mode)
    if stat.S_ISREG(status.st_mode):
        return Member(name, path, status.st_size, mode)
    return None
