"""What runs for the serving paths besides them: its memory and its CPU time."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
from lightkube.resources.core_v1 import Node

from servepath.cluster.client import errors_of, kubernetes
from servepath.lifecycle.summary import measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.lifecycle.model import Measurement

CONTROL_PLANE_NAMESPACES = ("kserve", "agentgateway-system", "envoy-gateway-system", "cert-manager")
"""Where KServe, the gateways and what they need run when they are installed as their charts do it."""

# A Deployment's pod is named after its ReplicaSet, that after its Deployment.
_GENERATED = re.compile(r"-[a-f0-9]{6,10}-[a-z0-9]{5}$")
_NANOSECONDS = 1e-9


@dataclass(frozen=True, slots=True)
class Usage:
    """What a program uses: memory that it holds now, and CPU time since its start, in core seconds."""

    memory_bytes: int
    cpu_s: float


Footprint: TypeAlias = Callable[[], Awaitable[Mapping[str, Usage]]]
"""Gives each program of the control plane, by name."""


async def kubelet_footprint(cluster: Cluster) -> dict[str, Usage]:
    """Read what the control plane's pods use from each node's kubelet, through the API server.

    Returns:
        By `<namespace>/<name>`: the working set in bytes and the CPU seconds so far; replicas of one Deployment are
        added up. Namespaces are those of `CONTROL_PLANE_NAMESPACES` and the Gateway's.

    Raises:
        ClusterError: the API server does not answer, or the caller may not read `nodes/proxy`.
    """
    namespaces = {*CONTROL_PLANE_NAMESPACES, cluster.gateway_namespace}
    found: dict[str, Usage] = {}
    async with kubernetes(cluster) as client:
        with errors_of("Node"):
            nodes = [str(node.metadata.name) async for node in client.list(Node) if node.metadata]
        for node in nodes:
            for name, usage in usage_of(await _summary(client, node), namespaces):
                before = found.get(name, Usage(0, 0.0))
                found[name] = Usage(before.memory_bytes + usage.memory_bytes, before.cpu_s + usage.cpu_s)
    return found


def usage_of(summary: Mapping[str, Any], namespaces: set[str]) -> Iterator[tuple[str, Usage]]:
    """Give the usage of each pod in these namespaces, from a kubelet's `stats/summary`."""
    for pod in summary.get("pods") or []:
        reference = pod["podRef"]
        if reference["namespace"] not in namespaces:
            continue
        containers = pod.get("containers") or []
        memory_bytes = sum(int((one.get("memory") or {}).get("workingSetBytes") or 0) for one in containers)
        cpu_ns = sum(int((one.get("cpu") or {}).get("usageCoreNanoSeconds") or 0) for one in containers)
        name = _GENERATED.sub("", reference["name"])
        yield f"{reference['namespace']}/{name}", Usage(memory_bytes, cpu_ns * _NANOSECONDS)


async def _summary(client: AsyncClient, node: str) -> dict[str, Any]:
    # lightkube 1.0.1 has no call for a node's proxy: the request is made as it makes its own.
    http = client._client._client  # noqa: SLF001
    with errors_of(f"Node {node}"):
        response = await http.get(f"/api/v1/nodes/{node}/proxy/stats/summary", params={"only_cpu_and_memory": "true"})
        response.raise_for_status()
    summary: dict[str, Any] = response.json()
    return summary


@dataclass(slots=True)
class Meter:
    """Takes a footprint again and again, and makes measurements of it.

    Attributes:
        footprint: gives what is used now.
        readings: when each was taken (anyio's clock, in seconds), and what it was.
    """

    footprint: Footprint
    readings: list[tuple[float, Mapping[str, Usage]]] = field(default_factory=list)

    async def read(self) -> None:
        """Take one reading.

        Raises:
            ClusterError: it could not be taken.
        """
        taken = await self.footprint()
        self.readings.append((anyio.current_time(), taken))

    def measurements(self, how_memory: str) -> tuple[Measurement, ...]:
        """Give memory and CPU of each program that is in every reading; CPU needs two readings."""
        if not self.readings:
            return ()
        names = sorted(set.intersection(*(set(taken) for _, taken in self.readings)))
        memory = [
            measurement(
                "control_plane_memory",
                name,
                "bytes",
                tuple(float(taken[name].memory_bytes) for _, taken in self.readings),
                how_memory,
            )
            for name in names
        ]
        cpu = [
            measurement(
                "control_plane_cpu",
                name,
                "cores",
                self._cores(name),
                "CPU time over wall time between two readings, while paths were updated, stopped and started",
            )
            for name in names
            if len(self.readings) > 1
        ]
        return (*memory, *cpu)

    def _cores(self, name: str) -> tuple[float, ...]:
        pairs = zip(self.readings, self.readings[1:], strict=False)
        return tuple(
            max(0.0, (now[name].cpu_s - before[name].cpu_s) / (now_s - before_s))
            for (before_s, before), (now_s, now) in pairs
        )
