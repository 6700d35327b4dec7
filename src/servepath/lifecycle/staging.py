"""The two ways of a model into a pod: the modelcar as the node pulls it, and a copy of its files in a volume."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import anyio
from lightkube.resources.core_v1 import Event

from servepath.cluster.client import errors_of, kubernetes
from servepath.cluster.diagnostics import container_log
from servepath.cluster.objects import MANAGED_BY, OWNER, Json, apply, read
from servepath.cluster.wait import until, until_gone
from servepath.errors import ClusterError
from servepath.serving.deploy import delete_one
from servepath.serving.model import ServingPath
from servepath.serving.render import object_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.serving.model import ServingSpec

_PULLED = re.compile(r'^Successfully pulled image "(?P<image>[^"]+)" in (?P<time>\S+) ')
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|µs|us|ns|s)")
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}
_COPY_TIMEOUT_S = 600.0
_DELETE_TIMEOUT_S = 120.0
# /proc/uptime is the clock that a shell without `date` has; its resolution is 10 ms.
_COPY = """
read before rest < /proc/uptime
cp -rL /models/. /target/
read after rest < /proc/uptime
echo "copied $before $after"
"""
_COPIED = re.compile(r"^copied (\d+\.\d+) (\d+\.\d+)$", re.MULTILINE)


async def pull_times_s(client: AsyncClient, namespace: str, image: str, pods: Collection[str]) -> tuple[float, ...]:
    """Give how long the kubelet says that these pods' pulls of an image took, in seconds, from its events.

    A pod whose node had the image already has no such event.

    Raises:
        ClusterError: the API server refuses.
    """
    with errors_of(f"events of {namespace}"):
        listed = client.list(Event, namespace=namespace, fields={"reason": "Pulled"})
        events = [event.to_dict() async for event in listed]
    return tuple(times_in(events, image, pods))


def times_in(events: Iterable[Json], image: str, pods: Collection[str]) -> Iterator[float]:
    """Give the seconds of each pull of an image for one of these pods that the kubelet's events tell of."""
    for event in events:
        found = _PULLED.match(str(event.get("message", "")))
        if found and found["image"] == image and event["involvedObject"]["name"] in pods:
            yield go_duration_s(found["time"])


def go_duration_s(text: str) -> float:
    """Give the seconds of a duration as Go writes it, such as `1m13.893s`.

    Raises:
        ValueError: it is none.
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(text)
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


async def staging_time_s(cluster: Cluster, spec: ServingSpec) -> float:
    """Copy the model's files from the modelcar into a new volume and give the seconds that the copying took.

    The claim asks for what the raw path's claim asks for, so that it is the same kind of volume. The pull of the
    modelcar is not in this time, and the copy is as the raw path makes it: its last bytes may be in the page cache.

    Raises:
        ClusterError: the raw path is not deployed, or the copy failed or did not end in ten minutes.
    """
    name = f"{spec.name}-staging"
    async with kubernetes(cluster) as client:
        claim = await _claim_like_raws(client, spec, name)
        try:
            await apply(client, claim)
            await apply(client, _pod(spec, name))
            await until(
                client,
                "Pod",
                spec.namespace,
                name,
                _ended,
                timeout_s=_COPY_TIMEOUT_S,
                expected="the copy at its end",
            )
            log = await container_log(client, spec.namespace, name, "copy", lines=20, previous=False)
        finally:
            with anyio.CancelScope(shield=True):
                for kind in ("Pod", "PersistentVolumeClaim"):
                    await delete_one(client, kind, spec.namespace, name)
                    await until_gone(client, kind, spec.namespace, name, timeout_s=_DELETE_TIMEOUT_S)
    found = _COPIED.search(log)
    if found is None:
        raise ClusterError(
            f"the copy into a volume failed: {log.strip()[-300:]}",
            where=f"Pod {spec.namespace}/{name}",
            expected="a volume with room for the model",
        )
    return round(float(found[2]) - float(found[1]), 2)


def _ended(pod: Json | None) -> bool | None:
    phase = ((pod or {}).get("status") or {}).get("phase")
    return True if phase in ("Succeeded", "Failed") else None


async def _claim_like_raws(client: AsyncClient, spec: ServingSpec, name: str) -> Json:
    raw = object_name(spec, ServingPath.RAW)
    present = await read(client, "PersistentVolumeClaim", raw, spec.namespace)
    if present is None:
        raise ClusterError(
            "not deployed",
            where=f"PersistentVolumeClaim {spec.namespace}/{raw}",
            next_command="servepath deploy --path raw --help",
        )
    asked = present["spec"]
    kept = {key: asked[key] for key in ("accessModes", "resources", "storageClassName") if key in asked}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": spec.namespace, "labels": {MANAGED_BY: OWNER}},
        "spec": kept,
    }


def _pod(spec: ServingSpec, name: str) -> Json:
    security: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "copy",
        "image": spec.modelcar_reference,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-euc", _COPY],
        # As the raw path's own copy: the page cache counts, and is reclaimed.
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        "securityContext": security,
        "volumeMounts": [{"name": "target", "mountPath": "/target"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": spec.namespace, "labels": {MANAGED_BY: OWNER}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "target", "persistentVolumeClaim": {"claimName": name}}],
        },
    }
