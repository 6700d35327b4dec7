"""Reading Kubernetes objects for the checks, as plain dictionaries, and the kubectl lines that show the same."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from httpx2.websockets import WebSocketUpgradeError
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod

from servepath.cluster.objects import HTTPRoute, Json
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from servepath.checks.context import Tools
    from servepath.cluster.model import Cluster
    from servepath.serving.model import Endpoint


def kubectl(cluster: Cluster, *arguments: str) -> str:
    """Give a kubectl line for this cluster that can be pasted into a shell."""
    words = ["kubectl", "--kubeconfig", str(cluster.kubeconfig)]
    if cluster.context:
        words += ["--context", cluster.context]
    return shlex.join([*words, *arguments])


def describe_workload(tools: Tools, endpoint: Endpoint) -> str:
    """Give the kubectl line that shows an endpoint's Deployment and its conditions."""
    return kubectl(tools.context.cluster, "-n", endpoint.namespace, "describe", "deployment", endpoint.workload)


def show_pod(tools: Tools, pod: Json) -> str:
    """Give the kubectl line that shows a pod as it is."""
    metadata = pod["metadata"]
    return kubectl(tools.context.cluster, "-n", metadata["namespace"], "get", "pod", metadata["name"], "-o", "yaml")


def exec_line(tools: Tools, pod: Json, container: str, script: str) -> str:
    """Give the kubectl line that runs a shell script in a pod's container."""
    metadata = pod["metadata"]
    where = ("-n", metadata["namespace"], "exec", metadata["name"], "-c", container)
    return kubectl(tools.context.cluster, *where, "--", "sh", "-c", script)


async def execute(tools: Tools, pod: Json, container: str, script: str) -> tuple[int, str]:
    """Run a shell script in a pod's container; gives its exit code and what it wrote to stderr.

    Raises:
        ClusterError: the API server or the kubelet refuses.
    """
    metadata = pod["metadata"]
    try:
        answer = await tools.kube.exec(
            metadata["name"],
            namespace=metadata["namespace"],
            container=container,
            command=["sh", "-c", script],
            stderr=True,
        )
    except WebSocketUpgradeError as error:
        raise ClusterError(
            f"exec in {container} was refused with {error.response.status_code}",
            next_command=exec_line(tools, pod, container, script),
        ) from error
    return answer.exit_code, str(answer.stderr or "")


def show_routes(tools: Tools, endpoint: Endpoint) -> str:
    """Give the kubectl line that shows the HTTPRoutes of an endpoint's namespace."""
    return kubectl(tools.context.cluster, "-n", endpoint.namespace, "get", "httproutes", "-o", "yaml")


async def read_pod(tools: Tools, endpoint: Endpoint) -> Json:
    """Read the newest pod of an endpoint's Deployment that is not being deleted.

    Raises:
        ClusterError: the Deployment has no such pod.
        lightkube.ApiError: the Deployment does not exist, or the API server refuses.
    """
    deployment = (await tools.kube.get(Deployment, endpoint.workload, namespace=endpoint.namespace)).to_dict()
    labels = deployment["spec"]["selector"].get("matchLabels", {})
    pods = [
        pod.to_dict() async for pod in tools.kube.list(Pod, namespace=endpoint.namespace, labels=dict(labels.items()))
    ]
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    if not alive:
        raise ClusterError(
            "the Deployment has no pod",
            where=f"{endpoint.namespace}/{endpoint.workload}",
            next_command=describe_workload(tools, endpoint),
        )
    return max(alive, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


async def read_routes(tools: Tools, endpoint: Endpoint) -> list[Json]:
    """Read the HTTPRoutes of the endpoint's namespace that name its host.

    Raises:
        ClusterError: no HTTPRoute names the host.
    """
    routes = [dict(route) async for route in tools.kube.list(HTTPRoute, namespace=endpoint.namespace)]
    found = [route for route in routes if endpoint.host in route.get("spec", {}).get("hostnames", [])]
    if not found:
        names = ", ".join(sorted(route["metadata"]["name"] for route in routes)) or "none"
        raise ClusterError(
            f"no HTTPRoute names the host {endpoint.host}; HTTPRoutes there: {names}",
            where=f"namespace {endpoint.namespace}",
            next_command=show_routes(tools, endpoint),
        )
    return found
