"""Facts of the node that a run was measured on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from lightkube.resources.core_v1 import Node

from servepath.cluster.client import errors_of, kubernetes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servepath.cluster.model import Cluster

_CPU_INFO = Path("/proc/cpuinfo")
_MACHINE_ID = Path("/etc/machine-id")


async def node_facts(cluster: Cluster) -> dict[str, Any]:
    """Read the facts of the cluster's first node, for `RunInfo.node`.

    Returns:
        `name`, `nodes` (how many there are), `cpus` and `memory` (Kubernetes quantities), `gpus`, `architecture`,
        `operating_system`, `kernel`, `kubelet`, `container_runtime`; `cpu_model` only where servepath runs on the node
        itself, since Kubernetes does not tell it.

    Raises:
        ClusterError: the API server does not answer.
    """
    async with kubernetes(cluster) as client:
        with errors_of("Node"):
            nodes = [node.to_dict() async for node in client.list(Node)]
    if not nodes:
        return {"nodes": 0}
    first = min(nodes, key=lambda node: str(node["metadata"]["name"]))
    facts = {"nodes": len(nodes), **facts_of(first)}
    if await _is_here(first):
        facts["cpu_model"] = cpu_model(await anyio.Path(_CPU_INFO).read_text())
    return facts


def facts_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Give the facts that a Node object tells."""
    status = node.get("status", {})
    info = status.get("nodeInfo", {})
    capacity = status.get("capacity", {})
    return {
        "name": node["metadata"]["name"],
        "cpus": capacity.get("cpu", ""),
        "memory": capacity.get("memory", ""),
        "gpus": capacity.get("nvidia.com/gpu", "0"),
        "architecture": info.get("architecture", ""),
        "operating_system": info.get("osImage", ""),
        "kernel": info.get("kernelVersion", ""),
        "kubelet": info.get("kubeletVersion", ""),
        "container_runtime": info.get("containerRuntimeVersion", ""),
    }


def cpu_model(cpuinfo: str) -> str:
    """Give the CPU's name from the text of /proc/cpuinfo, empty where it does not say (as on arm64)."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else ""


async def _is_here(node: Mapping[str, Any]) -> bool:
    """Tell whether the node is this machine: the kubelet reports its machine id and its boot id."""
    info = node.get("status", {}).get("nodeInfo", {})
    boot = anyio.Path("/proc/sys/kernel/random/boot_id")
    for path, reported in ((anyio.Path(_MACHINE_ID), info.get("machineID")), (boot, info.get("bootID"))):
        if reported and await path.is_file() and (await path.read_text()).strip() == reported:
            return True
    return False
