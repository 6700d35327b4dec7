"""Whether this machine can carry the node, asked before anything is started."""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ci.node import cgroups
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from ci.node.layout import Layout

GB = 1_000_000_000
DISK_COLD_BYTES = 25 * GB
DISK_WARM_BYTES = 8 * GB
MEMORY_BYTES = 12 * GB


@dataclass(frozen=True, slots=True)
class Facts:
    """What the node needs to know of its machine.

    Attributes:
        system: `Linux`, `Darwin`, ...
        machine: `x86_64`, `aarch64`, ...
        uid: the effective user id.
        controllers: the cgroup controllers that the kernel offers.
        filesystems: the file systems that the kernel knows.
        cache: the folder whose disk is meant.
        disk_free_bytes: free space on that disk.
        is_warm: whether the image store is filled, so that a run needs less of it.
        memory_available_bytes: memory that could be used without swapping.
    """

    system: str
    machine: str
    uid: int
    controllers: frozenset[str]
    filesystems: frozenset[str]
    cache: Path
    disk_free_bytes: int
    is_warm: bool
    memory_available_bytes: int


def observe(layout: Layout) -> Facts:
    """The facts of this machine."""
    is_linux = platform.system() == "Linux"
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        uid=os.geteuid(),
        controllers=cgroups.controllers() if is_linux and cgroups.ROOT.is_dir() else frozenset(),
        filesystems=frozenset(Path("/proc/filesystems").read_text().split()) if is_linux else frozenset(),
        cache=layout.cache,
        disk_free_bytes=shutil.disk_usage(_existing(layout.cache)).free,
        is_warm=(layout.containerd / "io.containerd.snapshotter.v1.overlayfs").is_dir(),
        memory_available_bytes=_memory_available_bytes() if is_linux else 0,
    )


def check(facts: Facts) -> None:
    """Return if the machine will do.

    Raises:
        ClusterError: what is missing, the first thing only, with the command to type next.
    """
    _check_system(facts)
    _check_kernel(facts)
    _check_room(facts)


def _check_system(facts: Facts) -> None:
    if facts.system != "Linux" or facts.machine != "x86_64":
        raise ClusterError(
            "the embedded node runs on Linux on x86_64 only",
            where=f"{facts.system} on {facts.machine}",
            next_command="dagger call e2e, which brings its own cluster",
        )
    if facts.uid != 0:
        raise ClusterError(
            "the embedded node needs root: it makes namespaces, mounts and control groups",
            where=f"uid {facts.uid}",
            expected="uid 0",
            next_command="sudo --preserve-env=HOME,PATH make e2e",
        )


def _check_kernel(facts: Facts) -> None:
    absent = sorted(set(cgroups.NEEDED) - facts.controllers)
    if absent:
        raise ClusterError(
            f"cgroup controllers are missing: {', '.join(absent)}",
            where=str(cgroups.ROOT),
            expected=", ".join(cgroups.NEEDED),
            next_command="boot with cgroup_enable=memory, or start this container with --privileged --cgroupns=host",
        )
    if "overlay" not in facts.filesystems:
        raise ClusterError(
            "the kernel has no overlayfs",
            where="/proc/filesystems",
            expected="overlay",
            next_command="modprobe overlay",
        )


def _check_room(facts: Facts) -> None:
    needed_bytes = DISK_WARM_BYTES if facts.is_warm else DISK_COLD_BYTES
    if facts.disk_free_bytes < needed_bytes:
        raise ClusterError(
            f"too little disk space: {facts.disk_free_bytes / GB:.1f} GB free",
            where=str(facts.cache),
            expected=f"{needed_bytes / GB:.0f} GB",
            next_command="free some, or set SERVEPATH_CACHE to a folder on a larger disk",
        )
    if facts.memory_available_bytes < MEMORY_BYTES:
        raise ClusterError(
            f"too little memory: {facts.memory_available_bytes / GB:.1f} GB available",
            where="/proc/meminfo",
            expected=f"{MEMORY_BYTES / GB:.0f} GB for two engines side by side",
            next_command="ps -eo rss,comm --sort=-rss | head, to see who has it",
        )


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _memory_available_bytes() -> int:
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
