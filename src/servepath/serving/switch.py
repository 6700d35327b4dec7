"""Stop a serving path without taking it away, and start it again. Doing either again changes nothing."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from lightkube.resources.core_v1 import Pod
from lightkube.types import PatchType

from servepath.cluster.client import errors_of, kubernetes
from servepath.cluster.objects import KINDS, MANAGED_BY, OWNER, Json, is_ours, place, read
from servepath.cluster.wait import changes, until_gone
from servepath.errors import ClusterError
from servepath.serving.find import api_key_of, expectation_of
from servepath.serving.model import ServingPath
from servepath.serving.readiness import await_ready
from servepath.serving.scalers import hold_scaler, kept_awake
from servepath.serving.stopped import ENGINE_KIND, deployment_name, is_stopped, pod_labels, switch_patch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.serving.model import Profile

_STOP_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Switched:
    """A path that was stopped or started.

    Attributes:
        path: the serving path.
        changed: whether anything was changed; False where it was so already.
        duration_s: of a stop, seconds until the last pod was gone; of a start, seconds until the first token.
    """

    path: ServingPath
    changed: bool
    duration_s: float


async def stop(cluster: Cluster, namespace: str, name: str, path: ServingPath) -> Switched:
    """Stop a path and await that its pods are gone. Its objects, its volume and its key stay.

    Args:
        cluster: where; its gateway is not needed.
        namespace: the namespace of the serving paths.
        name: the base name that they were deployed under.
        path: which of them.

    Raises:
        ClusterError: it is not deployed, it is somebody else's, or its pods are still there after three minutes.
    """
    began = time.monotonic()
    async with kubernetes(cluster) as client:
        engine = await our_engine(client, namespace, name, path)
        changed = not is_stopped(engine, path)
        if changed:
            await set_stopped(client, engine, path, stopped=True)
        if path is ServingPath.KSERVE:
            await until_gone(client, "Deployment", namespace, deployment_name(engine, path), timeout_s=_STOP_TIMEOUT_S)
        await until_no_pods(client, namespace, pod_labels(engine, path), timeout_s=_STOP_TIMEOUT_S)
    return Switched(path, changed, time.monotonic() - began)


async def start(cluster: Cluster, namespace: str, name: str, path: ServingPath, profile: Profile) -> Switched:
    """Start a path that was stopped, or that KEDA put to sleep, and await its first token through the gateway.

    Args:
        cluster: where.
        namespace: the namespace of the serving paths.
        name: the base name that they were deployed under.
        path: which of them.
        profile: what it was deployed with: its budgets of time are used.

    Raises:
        ClusterError: it is not deployed, it is somebody else's, or it does not come up, with the real cause.
    """
    began = time.monotonic()
    async with kubernetes(cluster) as client:
        engine = await our_engine(client, namespace, name, path)
        stopped = is_stopped(engine, path)
        changed = stopped or await _sleeps(client, engine, path)
        expected = await expectation_of(client, engine, path, profile)
        key = await api_key_of(client, engine, path)
        if stopped:
            await set_stopped(client, engine, path, stopped=False)
        async with kept_awake(client, namespace, expected.deployment, profile.autoscaling):
            await await_ready(client, cluster, expected, key)
    return Switched(path, changed, time.monotonic() - began)


async def _sleeps(client: AsyncClient, engine: Json, path: ServingPath) -> bool:
    """Tell whether an autoscaler has taken the last engine away."""
    name, namespace = deployment_name(engine, path), engine["metadata"]["namespace"]
    deployment = await read(client, "Deployment", name, namespace)
    return deployment is not None and deployment["spec"].get("replicas") == 0


async def our_engine(client: AsyncClient, namespace: str, name: str, path: ServingPath) -> Json:
    """Read the object that carries a path's engine.

    Raises:
        ClusterError: there is none, or servepath did not make it.
    """
    kind, object_name = ENGINE_KIND[path], f"{name}-{path}"
    where = f"{kind} {namespace}/{object_name}"
    engine = await read(client, kind, object_name, namespace)
    if engine is None:
        raise ClusterError("not deployed", where=where, next_command="servepath deploy --help")
    if not is_ours(engine):
        raise ClusterError(
            "servepath did not make it", where=where, expected=f"the label {MANAGED_BY}={OWNER}, or another --name"
        )
    return engine


async def until_no_pods(client: AsyncClient, namespace: str, labels: Mapping[str, str], *, timeout_s: float) -> None:
    """Await that no pod has these labels.

    Raises:
        ClusterError: some still do when the budget is spent.
    """
    listed = client.list(Pod, namespace=namespace, labels=dict(labels))
    with errors_of(f"pods in {namespace}"):
        left = {str(pod.metadata.name) async for pod in listed if pod.metadata}
    version = listed.resourceVersion
    with anyio.move_on_after(timeout_s):
        if not left:
            return
        async with aclosing(changes(client, "Pod", namespace, labels=labels, since=version)) as events:
            async for event, pod in events:
                (left.discard if event == "DELETED" else left.add)(pod["metadata"]["name"])
                if not left:
                    return
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    raise ClusterError(
        f"still there after {timeout_s:.0f} s: {', '.join(sorted(left))}",
        where=f"pods in {namespace}",
        expected="none",
        next_command=f"kubectl -n {namespace} describe pods -l {selector}",
    )


async def set_stopped(client: AsyncClient, engine: Json, path: ServingPath, *, stopped: bool) -> None:
    """Stop a path or start it, and await nothing.

    Args:
        client: the Kubernetes client.
        engine: the object that carries the path's engine.
        path: which path it is.
        stopped: which of the two.

    Raises:
        ClusterError: the API server refuses.
    """
    metadata = engine["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    if path is ServingPath.RAW:
        await hold_scaler(client, namespace, name, held=stopped)
    patch = switch_patch(path, stopped=stopped)
    with errors_of(place(engine)):
        await client.patch(KINDS[ENGINE_KIND[path]], name, patch, namespace=namespace, patch_type=PatchType.MERGE)
