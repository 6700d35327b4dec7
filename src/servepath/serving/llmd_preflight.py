"""Whether a cluster can run the llm-d path at all: looked up before anything is applied, so that nothing hangs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightkube.resources.core_v1 import Node, Pod

from servepath.cluster.client import errors_of
from servepath.errors import ClusterError
from servepath.platform.llmd import INSTALL, missing
from servepath.serving.llmd import container_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lightkube import AsyncClient

GPU = "nvidia.com/gpu"
_KEEP_OUT = ("NoSchedule", "NoExecute")
_OVER = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Room:
    """The GPUs of one node.

    Attributes:
        node: its name.
        total: GPUs that pods may have.
        free: of these, how many no pod has.
    """

    node: str
    total: int
    free: int


async def check_installed(client: AsyncClient) -> None:
    """Refuse a cluster without the controller's kinds or its presets.

    Raises:
        ClusterError: something is absent; with the command that installs it.
    """
    if absent := await missing(client):
        raise ClusterError(
            f"not there: {', '.join(absent)}",
            where="llm-d path",
            expected="KServe's llm-d controller v0.19.0, its kinds and its presets",
            next_command=INSTALL,
        )


async def check_gpus(client: AsyncClient, service: Mapping[str, Any], engines: int) -> None:
    """Refuse where engines would wait for GPUs for ever.

    Args:
        client: the Kubernetes client.
        service: the LLMInferenceService as it will be applied.
        engines: how many engines must be started beside those that run.

    Raises:
        ClusterError: there are not enough free GPUs; it says how many each node has.
    """
    each = int(container_of(service).get("resources", {}).get("limits", {}).get(GPU, 0))
    if not each or not engines:
        return
    with errors_of("nodes and pods"):
        nodes = [node.to_dict() async for node in client.list(Node)]
        pods = [pod.to_dict() async for pod in client.list(Pod, namespace="*")]
    found = rooms(nodes, pods, service["spec"]["template"].get("tolerations", ()))
    if sum(room.free // each for room in found) < engines:
        there = ", ".join(f"{room.node} has {room.free} of {room.total} free" for room in found)
        metadata = service["metadata"]
        raise ClusterError(
            f"needs {engines * each} GPUs ({engines} new engines of {each}): {there or 'no node has any'}",
            where=f"llm-d path, {metadata['namespace']}/{metadata['name']}",
            expected="free GPUs now: a node pool that grows from zero must be grown first",
            next_command="kubectl describe nodes",
        )


def new_engines(service: Mapping[str, Any], live: Mapping[str, Any] | None, *, same_key: bool) -> int:
    """Give how many engines must be started beside those that run: all, none, or those that an update rolls ahead.

    The controller's Deployment has no strategy of its own, so Kubernetes' default holds: a quarter more, rounded up,
    and a quarter fewer, rounded down. So an update needs a GPU beside those of the engines that it replaces.

    Args:
        service: the LLMInferenceService as it will be applied.
        live: the one in the cluster, None where there is none or it is stopped.
        same_key: whether the engines know the key already.
    """
    replicas = int(service["spec"]["replicas"])
    if live is None:
        return replicas
    added = max(0, replicas - int(live["spec"].get("replicas", 1)))
    same = same_key and all(live["spec"].get(part) == service["spec"].get(part) for part in ("model", "template"))
    return added if same else max(added, -(-replicas // 4))


def rooms(
    nodes: Iterable[Mapping[str, Any]],
    pods: Iterable[Mapping[str, Any]],
    tolerations: Sequence[Mapping[str, Any]],
) -> tuple[Room, ...]:
    """Give the GPUs of each node that has some and takes pods with these tolerations.

    A node that is not ready or is closed has a taint that says so, as has one that is kept for others.
    """
    used: dict[str, int] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node and (pod.get("status") or {}).get("phase") not in _OVER:
            used[node] = used.get(node, 0) + _gpus_of(pod)
    found = []
    for node in nodes:
        name = node["metadata"]["name"]
        total = int((node.get("status") or {}).get("allocatable", {}).get(GPU, 0))
        closed = [taint for taint in node["spec"].get("taints") or () if taint["effect"] in _KEEP_OUT]
        if total and all(any(_tolerates(one, taint) for one in tolerations) for taint in closed):
            found.append(Room(name, total, max(0, total - used.get(name, 0))))
    return tuple(found)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Tell whether a toleration is one of a taint, by Kubernetes' rules."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))


def _gpus_of(pod: Mapping[str, Any]) -> int:
    containers = pod["spec"].get("containers") or []
    return sum(int(((one.get("resources") or {}).get("limits") or {}).get(GPU, 0)) for one in containers)
