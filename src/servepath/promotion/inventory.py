"""What there is of a release in the cluster: every object that servepath made for it, exactly as it is.

Objects are read as plain JSON, field for field: a typed client would drop the fields that its version does not know.
"""

from __future__ import annotations

import copy
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx2
from lightkube.generic_resource import GenericNamespacedResource, create_api_info

from servepath.cluster.client import errors_of
from servepath.cluster.labels import RECORD, RELEASE
from servepath.cluster.objects import MANAGED_BY, OWNER
from servepath.serving.model import ServingPath
from servepath.serving.render import INSTANCE
from servepath.serving.slots import Slot, route_name, slot_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightkube import AsyncClient

    from servepath.cluster.objects import Json

# group, version, kind, plural; in the order in which they are made.
_KINDS = (
    ("", "v1", "Secret", "secrets"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("", "v1", "Service", "services"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("apps", "v1", "Deployment", "deployments"),
    ("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    ("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
)
_SERVERS_OWN = (
    "resourceVersion",
    "uid",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
)
# Annotations by which controllers count a Deployment's revisions and bind a claim to its volume.
_CONTROLLERS_OWN = (
    "deployment.kubernetes.io/",
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/",
)


def _resource(group: str, version: str, kind: str, plural: str) -> Any:
    """Give the client's class of a kind; it is not registered, so that others keep their typed one."""
    info = create_api_info(group, version, kind, plural)
    return type(kind, (GenericNamespacedResource,), {"_api_info": info})


RESOURCES: dict[str, Any] = {kind: _resource(group, version, kind, plural) for group, version, kind, plural in _KINDS}
"""The kinds that servepath makes in a namespace, in the order in which they are made."""
API_VERSIONS = {kind: f"{group}/{version}" if group else version for group, version, kind, _ in _KINDS}


def instances_of(release: str) -> frozenset[str]:
    """Give the values of `app.kubernetes.io/instance` that a release's objects have: both paths, slots, the route."""
    names = {slot_name(release, slot) for slot in Slot}
    return frozenset({route_name(release), *(f"{name}-{path}" for name in names for path in ServingPath)})


def is_of(obj: Mapping[str, Any], release: str) -> bool:
    """Tell whether servepath made an object for this release, and no controller made it of another object.

    A release's records are not of it: they outlive what is rolled back.
    """
    metadata = obj["metadata"]
    labels = metadata.get("labels") or {}
    if labels.get(MANAGED_BY) != OWNER or RECORD in labels:
        return False
    if any(owner.get("controller") for owner in metadata.get("ownerReferences") or ()):
        return False
    return labels.get(RELEASE) == release or labels.get(INSTANCE) in instances_of(release)


async def owned(client: AsyncClient, namespace: str) -> tuple[Json, ...]:
    """Read every object with servepath's label in a namespace, of whatever release, in the order of RESOURCES.

    Raises:
        ClusterError: the API server refuses.
    """
    found: list[Json] = []
    for kind, resource in RESOURCES.items():
        with errors_of(f"{kind} in {namespace}"):
            try:
                listed = [
                    dict(obj) async for obj in client.list(resource, namespace=namespace, labels={MANAGED_BY: OWNER})
                ]
            except httpx2.HTTPStatusError as error:
                if error.response.status_code == HTTPStatus.NOT_FOUND:  # not served: nobody has made one
                    continue
                raise
        # A list does not repeat what all of its items are.
        found += [{**obj, "apiVersion": API_VERSIONS[kind], "kind": kind} for obj in listed]
    return tuple(found)


async def inventory(client: AsyncClient, namespace: str, release: str) -> tuple[Json, ...]:
    """Read every object that servepath made for a release.

    Raises:
        ClusterError: the API server refuses.
    """
    return tuple(obj for obj in await owned(client, namespace) if is_of(obj, release))


def key_of(obj: Mapping[str, Any]) -> tuple[str, str]:
    """Give an object's kind and name: its identity within a namespace."""
    return str(obj["kind"]), str(obj["metadata"]["name"])


def content_of(obj: Mapping[str, Any]) -> Json:
    """Give what somebody asked for: no status, and nothing that the API server or a controller notes down by itself.

    Of a Secret there is its content too: whoever keeps it keeps it in a Secret.
    """
    kept = {name: value for name, value in copy.deepcopy(dict(obj)).items() if name != "status"}
    metadata = kept["metadata"]
    for name in _SERVERS_OWN:
        metadata.pop(name, None)
    annotations = metadata.pop("annotations", None) or {}
    asked = {name: value for name, value in annotations.items() if not name.startswith(_CONTROLLERS_OWN)}
    if asked:
        metadata["annotations"] = asked
    if kept["kind"] == "PersistentVolumeClaim":
        kept["spec"].pop("volumeName", None)
    return kept


def snapshot_of(obj: Mapping[str, Any]) -> Json:
    """Give an object as a record keeps it: `content`, and as `fields` who had set which of them."""
    fields = obj["metadata"].get("managedFields") or []
    return {"content": content_of(obj), "fields": [one for one in fields if one.get("subresource") != "status"]}
