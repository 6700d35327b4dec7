"""What a person needs when a run failed, written into a directory: best effort, and never the value of a Secret.

An engine may log the key that it was given, or a token: in every file the values of the namespaces' Secrets are
replaced, and in logs and events also what has the looks of a secret.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import yaml
from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.resources.core_v1 import Event, Node, PersistentVolumeClaim, Pod, PodLog, Secret, Service
from lightkube.resources.networking_v1 import NetworkPolicy

from servepath.cluster.client import kubernetes
from servepath.cluster.objects import Gateway, HTTPRoute, InferenceService, Json
from servepath.errors import ServepathError
from servepath.redaction import redact, redact_looks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster

_LOG_LINES = 2000
_TIMEOUT_S = 60.0
_NAMESPACED: dict[str, Any] = {
    "pods": Pod,
    "deployments": Deployment,
    "replicasets": ReplicaSet,
    "services": Service,
    "persistentvolumeclaims": PersistentVolumeClaim,
    "inferenceservices": InferenceService,
    "httproutes": HTTPRoute,
    "networkpolicies": NetworkPolicy,
}


async def collect(cluster: Cluster, namespace: str, directory: Path) -> tuple[Path, ...]:
    """Write pods, logs, events and objects of a namespace into a directory.

    Layout: `objects/<namespace>/<kind>.yaml` (with status), `logs/<namespace>/<pod>.<container>[.previous].log`,
    `events/<namespace>.txt`, `secrets/<namespace>.txt` (names and keys, no values), `problems.txt` (what could not be
    had).
    The gateway's namespace is included, since it is there that a route which does not work is explained.

    Args:
        cluster: where.
        namespace: the namespace of the serving paths.
        directory: made if it does not exist.

    Returns:
        The files that were written. Nothing is raised: what could not be had is in `problems.txt`.
    """
    writer = _Writer(directory)
    with anyio.move_on_after(_TIMEOUT_S) as scope:
        try:
            async with kubernetes(cluster) as client:
                await _collect(client, cluster, namespace, writer)
        except (ServepathError, httpx2.HTTPError) as error:
            writer.problems.append(str(error))
    if scope.cancelled_caught:
        writer.problems.append(f"not finished in {_TIMEOUT_S:.0f} s")
    if writer.problems:
        await writer.write("problems.txt", "\n".join(writer.problems) + "\n")
    return tuple(writer.written)


class _Writer:
    """Writes files below a directory, remembers them, and notes what failed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.written: list[Path] = []
        self.problems: list[str] = []
        self.secrets: list[str] = []

    async def write(self, name: str, text: str) -> None:
        text = redact(text, self.secrets)
        path = self.directory / name
        await anyio.Path(path.parent).mkdir(parents=True, exist_ok=True)
        await anyio.Path(path).write_text(text, encoding="utf-8", errors="replace")
        self.written.append(path)

    async def attempt(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do one part; a failure is noted and the others go on."""
        try:
            await work()
        except (ServepathError, httpx2.HTTPError) as error:
            self.problems.append(f"{what}: {error or type(error).__name__}")


async def _collect(client: AsyncClient, cluster: Cluster, namespace: str, writer: _Writer) -> None:
    namespaces = tuple(dict.fromkeys((namespace, cluster.gateway_namespace)))

    async def cluster_wide() -> None:
        await _objects_of(client, Node, None, "objects/nodes.yaml", writer)()
        await _objects_of(client, Gateway, cluster.gateway_namespace, "objects/gateways.yaml", writer)()

    # First of all: nothing is written before it is known what may not be.
    for each in namespaces:
        await writer.attempt(f"secrets of {each}", _secrets_of(client, each, writer))
    async with anyio.create_task_group() as group:
        group.start_soon(writer.attempt, "nodes and gateways", cluster_wide)
        for each in namespaces:
            for plural, resource in _NAMESPACED.items():
                name = f"objects/{each}/{plural}.yaml"
                group.start_soon(writer.attempt, name, _objects_of(client, resource, each, name, writer))
            group.start_soon(writer.attempt, f"events of {each}", _events_of(client, each, writer))
            group.start_soon(writer.attempt, f"logs of {each}", _logs_of(client, each, writer))


def _objects_of(
    client: AsyncClient, resource: Any, namespace: str | None, name: str, writer: _Writer
) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        scope: dict[str, Any] = {"namespace": namespace} if namespace else {}
        found = [without_noise(item.to_dict()) async for item in client.list(resource, **scope)]
        if found:
            await writer.write(name, _yaml(found))

    return work


def _events_of(client: AsyncClient, namespace: str, writer: _Writer) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        events = [event.to_dict() async for event in client.list(Event, namespace=namespace)]
        if events:
            events.sort(key=_event_time)
            text = redact_looks("".join(f"{event_line(event)}\n" for event in events))
            await writer.write(f"events/{namespace}.txt", text)

    return work


def _logs_of(client: AsyncClient, namespace: str, writer: _Writer) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        pods = [pod.to_dict() async for pod in client.list(Pod, namespace=namespace)]
        for pod in pods:
            name = str(pod["metadata"]["name"])
            for container, previous in _containers_with_logs(pod):
                text = await container_log(client, namespace, name, container, lines=_LOG_LINES, previous=previous)
                if text:
                    suffix = ".previous" if previous else ""
                    await writer.write(f"logs/{namespace}/{name}.{container}{suffix}.log", redact_looks(text))

    return work


def _secrets_of(client: AsyncClient, namespace: str, writer: _Writer) -> Callable[[], Awaitable[None]]:
    """Write which Secrets there are, and learn their values, so that no file holds one."""

    async def work() -> None:
        secrets = [secret.to_dict() async for secret in client.list(Secret, namespace=namespace)]
        for secret in secrets:
            for encoded in (secret.get("data") or {}).values():
                writer.secrets += (encoded, base64.b64decode(encoded).decode(errors="replace"))
        lines = [f"{secret['metadata']['name']}: {', '.join(sorted(secret.get('data') or {}))}\n" for secret in secrets]
        if lines:
            await writer.write(f"secrets/{namespace}.txt", "".join(lines))

    return work


async def container_log(  # noqa: PLR0913
    client: AsyncClient, namespace: str, pod: str, container: str, *, lines: int, previous: bool
) -> str:
    """Read the last lines of a container's log, empty where there is none (it did not start, or its log is gone).

    Args:
        client: the Kubernetes client.
        namespace: the pod's namespace.
        pod: the pod's name.
        container: the container's name.
        lines: how many lines at most.
        previous: of the container's run before this one.
    """
    # AsyncClient.log has no `previous` (lightkube 1.0.1): the request is made as it makes it.
    generic = client._client  # noqa: SLF001
    request = generic.prepare_request(
        "get",
        PodLog,
        name=pod,
        namespace=namespace,
        params={"container": container, "tailLines": lines, "previous": "true" if previous else None},
    )
    response = await generic.send(generic.build_adapter_request(request))  # type: ignore[no-untyped-call]
    return str(response.text) if response.is_success else ""


def _containers_with_logs(pod: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or []:
            yield container["name"], False
            if container.get("restartCount", 0):
                yield container["name"], True


def without_noise(obj: Json) -> Json:
    """Drop what hides the rest: managed fields, and the copy of the object that `kubectl apply` keeps in it."""
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if key != "managedFields"}
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key != "kubectl.kubernetes.io/last-applied-configuration"
    }
    if "annotations" in metadata:
        metadata["annotations"] = annotations
    return {**obj, "metadata": metadata}


def event_line(event: Mapping[str, Any]) -> str:
    """Write an event as one line: time, type, reason, object, message, count."""
    involved = event.get("involvedObject", {})
    count = event.get("count") or 1
    message = " ".join(str(event.get("message", "")).split())
    return (
        f"{_event_time(event)} {event.get('type', '')} {event.get('reason', '')} "
        f"{involved.get('kind', '')}/{involved.get('name', '')}: {message}" + (f" (x{count})" if count > 1 else "")
    )


def _event_time(event: Mapping[str, Any]) -> str:
    times = (event.get("lastTimestamp"), event.get("eventTime"), event.get("metadata", {}).get("creationTimestamp"))
    return next((str(time) for time in times if time), "")


def _yaml(objects: list[Json]) -> str:
    # Through JSON: the client's objects hold datetimes and enums.
    plain = json.loads(json.dumps(objects, default=str))
    return yaml.safe_dump_all(plain, sort_keys=False, width=120)
