"""The control groups of the node's pods, on cgroup v1 and v2."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio

from servepath.errors import ClusterError

ROOT = Path("/sys/fs/cgroup")
NEEDED = ("cpu", "cpuset", "memory", "pids")

_REMOVE_TIMEOUT_S = 20


def is_unified(root: Path = ROOT) -> bool:
    """Whether the machine has cgroup v2 alone."""
    return (root / "cgroup.controllers").is_file()


def controllers(root: Path = ROOT) -> frozenset[str]:
    """The names of the controllers that the machine offers."""
    if is_unified(root):
        return frozenset((root / "cgroup.controllers").read_text().split())
    return frozenset(name for folder in _hierarchies(root) for name in folder.name.split(",") if name != "unified")


def create(name: str, root: Path = ROOT) -> None:
    """Make the cgroup `name` in every hierarchy, ready to have children.

    Raises:
        ClusterError: the kernel refuses, mostly because this machine is a container without a delegated cgroup.
    """
    try:
        for hierarchy in _hierarchies(root):
            folder = hierarchy / name
            folder.mkdir(exist_ok=True)
            # A new v1 cpuset allows nothing until it is told what; in v2 it inherits.
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if not is_unified(root) and (folder / setting).is_file():
                    (folder / setting).write_text((hierarchy / setting).read_text())
        if is_unified(root):
            enabled = " ".join(f"+{controller}" for controller in sorted(controllers(root)))
            for folder in (root, root / name):
                (folder / "cgroup.subtree_control").write_text(enabled)
    except OSError as error:
        raise ClusterError(
            f"a control group could not be made: {error.strerror}",
            where=str(error.filename or root),
            expected="a machine or a container that owns its cgroup tree",
            next_command="run on a virtual machine, or in a container with --privileged --cgroupns=private",
        ) from None


async def remove(name: str, root: Path = ROOT) -> None:
    """Kill what still runs in the cgroup `name` and remove it with everything below it.

    Raises:
        ClusterError: processes in it do not die.
    """
    for hierarchy in _hierarchies(root):
        await _remove(hierarchy / name)


async def _remove(top: Path) -> None:
    with anyio.move_on_after(_REMOVE_TIMEOUT_S):
        while True:
            if _remove_tree(top):
                return
            await anyio.sleep(0.05)  # the kernel frees a group a moment after its last process is gone
    raise ClusterError(
        "processes of an earlier node do not die", where=str(top), next_command=f"cat {top}/cgroup.procs"
    )


def _hierarchies(root: Path) -> list[Path]:
    if is_unified(root):
        return [root]
    folders = (entry for entry in sorted(root.iterdir()) if entry.is_dir() and not entry.is_symlink())
    return [folder for folder in folders if (folder / "cgroup.procs").is_file()]


def _remove_tree(top: Path) -> bool:
    removed = True
    for folder, _, _ in os.walk(top, topdown=False):
        for pid in Path(folder, "cgroup.procs").read_text().split():
            _kill(int(pid))
        try:
            Path(folder).rmdir()
        except OSError:
            removed = False
    return removed


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
