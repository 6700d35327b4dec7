"""What only the owner of a node can do for a measurement: take an image off it, and look at its programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ci.node import containerd
from servepath.errors import ClusterError
from servepath.lifecycle.footprint import Usage, kubelet_footprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ci.node.process import Process
    from servepath.cluster.model import Cluster

MEMORY_HOW = (
    "resident set of the controllers, which run as programs here, and working set of the proxy's pod; "
    "raw needs the gateway alone"
)

_CONTAINERS_GONE_S = 120.0
_POLL_S = 0.5
_LARGE_BYTES = 5_000_000


async def evict(reference: str) -> None:
    """Take an image off the node with every layer of it, so that the next pull fetches them all.

    Containers that have ended hold its layers, and so do other images that share them, such as an earlier build of the
    same model: the first are waited for, the second go as well.

    Raises:
        ClusterError: containers of it are still there after two minutes, or containerd refused.
    """
    images = await _images()
    digest = reference.rpartition("@")[2]
    own = await _large_layers(digest)
    sharing = [other for other in images if other == digest or own & await _large_layers(other)]
    names = [name for other in sharing for name in images[other]]
    with anyio.move_on_after(_CONTAINERS_GONE_S) as scope:
        # The kubelet removes the containers of a pod that is gone a moment later, and containerd tells nobody.
        while left := await _containers_of(names):  # noqa: ASYNC110 - there is nothing to be told by
            await anyio.sleep(_POLL_S)
    if scope.cancelled_caught:
        raise ClusterError(
            f"{len(left)} containers still use the image's layers",
            where=reference,
            expected="none, a while after its pods are gone",
            next_command="ctr --namespace k8s.io containers list",
        )
    if names:
        await containerd.ctr(["images", "remove", "--sync", *names])


async def _images() -> dict[str, list[str]]:
    """The names of every image, by digest."""
    names: dict[str, list[str]] = {}
    for line in (await containerd.ctr(["images", "list"])).splitlines()[1:]:
        name, _, digest, *_ = line.split()
        names.setdefault(digest, []).append(name)
    return names


async def _large_layers(digest: str) -> set[str]:
    """The digests of an image's layers but for those of its small base, which other images have too."""
    try:
        manifest = json.loads(await containerd.ctr(["content", "get", digest]))
    except ClusterError:  # it was never pulled
        return set()
    return {layer["digest"] for layer in manifest.get("layers", []) if layer["size"] >= _LARGE_BYTES}


async def _containers_of(names: Sequence[str]) -> list[str]:
    filters = [f"image=={name}" for name in names]
    return (await containerd.ctr(["containers", "list", "--quiet", *filters])).split() if filters else []


async def footprint(cluster: Cluster, programs: Mapping[str, Process]) -> dict[str, Usage]:
    """Give what the node's own programs use, and the gateway's proxy, which is a pod.

    Args:
        cluster: the node, as servepath sees it.
        programs: the control plane's programs, by the name to show.

    Raises:
        ClusterError: a program has ended, or the kubelet does not answer.
    """
    return {**{name: usage_of(running) for name, running in programs.items()}, **await kubelet_footprint(cluster)}


def usage_of(running: Process) -> Usage:
    """Give the resident set and the CPU time of a program, from /proc.

    Raises:
        ClusterError: it has ended.
    """
    folder = Path("/proc", str(running.popen.pid))
    try:
        status = (folder / "status").read_text()
        # The name in parentheses may hold spaces; user and system time are the 12th and 13th field after it.
        times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
    except (FileNotFoundError, ProcessLookupError):
        raise ClusterError(f"{running.name} has ended", where=str(running.log)) from None
    resident = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), None)
    if resident is None:  # a process that has ended and was not waited for
        raise ClusterError(f"{running.name} has ended", where=str(running.log))
    ticks = os.sysconf("SC_CLK_TCK")
    return Usage(int(resident) * 1024, sum(int(time) for time in times) / ticks)
