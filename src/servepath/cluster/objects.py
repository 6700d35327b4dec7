"""The kinds that servepath applies and reads, and server-side apply of plain dictionaries."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx2
from lightkube.codecs import from_dict
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.core_v1 import ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, Service
from lightkube.resources.networking_v1 import NetworkPolicy
from lightkube.resources.policy_v1 import PodDisruptionBudget

from servepath.cluster.client import errors_of
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightkube import AsyncClient

Json: TypeAlias = dict[str, Any]

InferenceService = create_namespaced_resource("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices")
ScaledObject = create_namespaced_resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
LLMInferenceService = create_namespaced_resource(
    "serving.kserve.io", "v1alpha2", "LLMInferenceService", "llminferenceservices"
)
LLMInferenceServiceConfig = create_namespaced_resource(
    "serving.kserve.io", "v1alpha2", "LLMInferenceServiceConfig", "llminferenceserviceconfigs"
)
HTTPRoute = create_namespaced_resource("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
Gateway = create_namespaced_resource("gateway.networking.k8s.io", "v1", "Gateway", "gateways")
GatewayClass = create_global_resource("gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses")

KINDS: dict[str, Any] = {
    "Namespace": Namespace,
    "Secret": Secret,
    "ConfigMap": ConfigMap,
    "PersistentVolumeClaim": PersistentVolumeClaim,
    "Service": Service,
    "NetworkPolicy": NetworkPolicy,
    "PodDisruptionBudget": PodDisruptionBudget,
    "Deployment": Deployment,
    "HTTPRoute": HTTPRoute,
    "InferenceService": InferenceService,
    "HorizontalPodAutoscaler": HorizontalPodAutoscaler,
    "ScaledObject": ScaledObject,
    "LLMInferenceService": LLMInferenceService,
    "LLMInferenceServiceConfig": LLMInferenceServiceConfig,
    "Gateway": Gateway,
    "GatewayClass": GatewayClass,
    "Pod": Pod,
}

MANAGED_BY = "app.kubernetes.io/managed-by"
OWNER = "servepath"
POD_SECURITY = {
    "pod-security.kubernetes.io/enforce": "baseline",
    "pod-security.kubernetes.io/warn": "restricted",
    "pod-security.kubernetes.io/audit": "restricted",
}
"""Of a namespace made here, as in manifests/*/base: KServe's webhook adds containers that are not `restricted`."""


def place(obj: Mapping[str, Any]) -> str:
    """Name an object for a person: `Deployment servepath/qwen-raw`."""
    metadata = obj.get("metadata", {})
    namespace = metadata.get("namespace")
    name = metadata.get("name", "?")
    return f"{obj.get('kind', '?')} {namespace}/{name}" if namespace else f"{obj.get('kind', '?')} {name}"


def is_ours(obj: Mapping[str, Any]) -> bool:
    """Tell whether servepath made an object: only such objects are changed or deleted."""
    return (obj.get("metadata", {}).get("labels") or {}).get(MANAGED_BY) == OWNER


async def read(client: AsyncClient, kind: str, name: str, namespace: str | None = None) -> Json | None:
    """Read an object as a dictionary, None where it does not exist, also where the API server does not know its kind.

    Raises:
        ClusterError: the API server refuses.
    """
    resource = KINDS[kind]
    place_of = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
    found: Any
    with errors_of(place_of):
        try:
            found = await (client.get(resource, name, namespace=namespace) if namespace else client.get(resource, name))
        except httpx2.HTTPStatusError as error:
            # Of a kind that it does not know the API server says so in plain text, which is no ApiError.
            if error.response.status_code == HTTPStatus.NOT_FOUND:
                return None
            raise
    return dict(found.to_dict())


async def is_kind(client: AsyncClient, definition: str) -> bool:
    """Tell whether the API server has a custom kind, by its definition's name: `scaledobjects.keda.sh`.

    Raises:
        ClusterError: the API server refuses.
    """
    with errors_of(f"CustomResourceDefinition {definition}"):
        try:
            await client.get(CustomResourceDefinition, definition)
        except ApiError as error:
            if error.status.code == HTTPStatus.NOT_FOUND:
                return False
            raise
    return True


async def apply(client: AsyncClient, obj: Mapping[str, Any], *, dry_run: bool = False) -> Json:
    """Apply an object server-side and give what the API server made of it, or would make of it in a dry run.

    An object of the same name that servepath did not make is left alone.

    Raises:
        ClusterError: the API server or a webhook refuses it, or somebody else's object has the name.
    """
    metadata = obj["metadata"]
    where = place(obj)
    present = await read(client, obj["kind"], metadata["name"], metadata.get("namespace"))
    if present is not None and not is_ours(present):
        raise ClusterError(
            "exists, and servepath did not make it",
            where=where,
            expected=f"the label {MANAGED_BY}={OWNER}, or another --name or --namespace",
        )
    with errors_of(where):
        applied: Any = await client.apply(from_dict(dict(obj)), force=True, dry_run=dry_run)
    return dict(applied.to_dict())


async def ensure_namespace(client: AsyncClient, name: str) -> None:
    """Make a namespace unless it exists; one that exists is not touched.

    Raises:
        ClusterError: the API server refuses.
    """
    if await read(client, "Namespace", name) is not None:
        return
    metadata = {"name": name, "labels": {MANAGED_BY: OWNER, **POD_SECURITY}}
    obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    with errors_of(f"Namespace {name}"):
        try:
            await client.create(from_dict(obj))
        except ApiError as error:
            # The other path is deployed at the same time, and was first.
            if error.status.code != HTTPStatus.CONFLICT:
                raise
