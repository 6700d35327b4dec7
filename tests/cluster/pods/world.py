"""Everything that an API server holds, to be compared before and after."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import anyio

from servepath.cluster.labels import RECORD

if TYPE_CHECKING:
    from ci.node.control_plane import ControlPlane

Json = dict[str, Any]

# What the control plane and the kubelet write by themselves, whoever does what.
_BEATS = (
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "componentstatuses",
    "nodes",
    "ipaddresses.networking.k8s.io",  # one for each Service, named by the address that it was given
)
_COUNTED = ("resourceVersion", "uid", "generation", "creationTimestamp", "managedFields")
_CLEANED_UP_S = 60.0  # a pod has 45 s to end
_STAMPS = ("deployment.kubernetes.io/", "endpoints.kubernetes.io/")


async def everything(plane: ControlPlane, namespace: str, *, exactly: bool = False) -> dict[str, Json]:
    """Every object of every kind, in the whole cluster for kinds without namespace and in one namespace for the others.

    Args:
        plane: the control plane.
        namespace: where.
        exactly: with versions, statuses and all: nothing may have been written at all.

    Returns:
        The objects by `kind/name`; without a promotion's records, unless `exactly`.
    """
    found: dict[str, Json] = {}
    for scope, where in (("true", ["--namespace", namespace]), ("false", [])):
        listed = await plane.kubectl("api-resources", f"--namespaced={scope}", "--verbs=list", "--output=name")
        kinds = [kind for kind in listed.split() if kind not in _BEATS]
        items = json.loads(await plane.kubectl("get", ",".join(kinds), *where, "--output=json"))["items"]
        for obj in items:
            if exactly:
                found[f"{obj['kind']}/{obj['metadata']['name']}"] = obj
            elif RECORD not in (obj["metadata"].get("labels") or {}):
                found[f"{obj['kind']}/{obj['metadata']['name']}"] = asked_for(obj)
    return found


def asked_for(obj: Json) -> Json:
    """An object without what the API server and controllers count and note by themselves."""
    kept = copy.deepcopy({key: value for key, value in obj.items() if key != "status"})
    metadata = kept["metadata"]
    for name in _COUNTED:
        metadata.pop(name, None)
    annotations = metadata.pop("annotations", None) or {}
    left = {key: value for key, value in annotations.items() if not key.startswith(_STAMPS)}
    if left:
        metadata["annotations"] = left
    for owner in metadata.get("ownerReferences") or ():
        owner.pop("uid", None)
        if kept["kind"] == "Service":  # made anew by a controller, it has another address
            kept["spec"].pop("clusterIP", None)
            kept["spec"].pop("clusterIPs", None)
    return kept


def without_pods(world: dict[str, Json]) -> dict[str, Json]:
    """Without what is made anew when an engine is started again: pods, their sets and addresses."""
    made_anew = ("Pod/", "ReplicaSet/", "EndpointSlice/", "Endpoints/")
    return {key: obj for key, obj in world.items() if not key.startswith(made_anew)}


async def is_again(plane: ControlPlane, namespace: str, before: dict[str, Json], *, pods: bool = True) -> None:
    """Assert that everything is what it was; what controllers clean up behind a deletion is awaited.

    Args:
        plane: the control plane.
        namespace: where.
        before: what `everything` gave.
        pods: with the very same pods; else they may have been started again.
    """
    wanted = before if pods else without_pods(before)
    after: dict[str, Json] = {}
    with anyio.move_on_after(_CLEANED_UP_S):
        while after != wanted:
            found = await everything(plane, namespace)
            after = found if pods else without_pods(found)
            await anyio.sleep(0.2)
    differ = {
        name: (wanted.get(name), after.get(name)) for name in {*wanted, *after} if wanted.get(name) != after.get(name)
    }
    assert differ == {}, differ


async def settled(plane: ControlPlane, namespace: str) -> dict[str, Json]:
    """Give everything exactly as it is, once two looks a second apart see the same and nothing on its way out."""
    with anyio.fail_after(120):
        before = await everything(plane, namespace, exactly=True)
        while True:
            await anyio.sleep(1)
            after = await everything(plane, namespace, exactly=True)
            if after == before and not any("deletionTimestamp" in obj["metadata"] for obj in after.values()):
                return after
            before = after
