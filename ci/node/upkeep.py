"""What only the owner of a node can do for a measurement: take an image off it, and look at its programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ci.node import containerd
from servepath.errors import ClusterError
from servepath.lifecycle.footprint import Usage, kubelet_footprint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ci.node.process import Process
    from servepath.cluster.model import Cluster

MEMORY_HOW = (
    "resident set of the controllers, which run as programs here, and working set of the proxy's pod; "
    "raw needs the gateway alone"
)

_CONTAINERS_GONE_S = 120.0
_POLL_S = 0.5


async def evict(reference: str) -> None:
    """Take an image off the node, once no container of it is left: ended ones hold its layers as well.

    Raises:
        ClusterError: containers of it are still there after two minutes, or containerd refused.
    """
    with anyio.move_on_after(_CONTAINERS_GONE_S) as scope:
        # The kubelet removes the containers of a pod that is gone a moment later, and containerd tells nobody.
        while left := await _containers_of(reference):  # noqa: ASYNC110 - there is nothing to be told by
            await anyio.sleep(_POLL_S)
    if scope.cancelled_caught:
        raise ClusterError(
            f"{len(left)} containers still use the image",
            where=reference,
            expected="none, a while after its pods are gone",
            next_command="ctr --namespace k8s.io containers list",
        )
    digest = reference.rpartition("@")[2]
    listed = await containerd.ctr(["images", "list", f"target.digest=={digest}"])
    names = [line.split()[0] for line in listed.splitlines()[1:] if line.split()]
    if names:
        await containerd.ctr(["images", "remove", "--sync", *names])


async def _containers_of(reference: str) -> list[str]:
    return (await containerd.ctr(["containers", "list", "--quiet", f"image=={reference}"])).split()


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
