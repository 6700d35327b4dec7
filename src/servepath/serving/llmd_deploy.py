"""Deploy the llm-d path and await its first completion through its own Gateway; delete it. Again changes nothing."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from lightkube.types import PatchType

from servepath.cluster.client import errors_of, kubernetes
from servepath.cluster.connect import connect
from servepath.cluster.objects import KINDS, Json, apply, read
from servepath.cluster.wait import until_gone
from servepath.serving.completion import FIRST_COMPLETION_S
from servepath.serving.deploy import delete_one
from servepath.serving.keys import apply_key
from servepath.serving.llmd import (
    KIND,
    check_llmd,
    container_of,
    deployment_of,
    llmd_name,
    llmd_namespace,
    pods_of,
    render_llmd,
    url_path,
)
from servepath.serving.llmd_preflight import check_gpus, check_installed, new_engines
from servepath.serving.model import DeployPath, Endpoint
from servepath.serving.readiness import Expectation, await_ready
from servepath.serving.stopped import STOP_ANNOTATION

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.serving.model import ServingSpec

_DELETE_TIMEOUT_S = 180.0
_DELETED_KINDS = (KIND, "Gateway", "NetworkPolicy", "Secret")
_GATEWAY_TIMEOUT_S = 300.0


async def deploy_llmd(cluster: Cluster, spec: ServingSpec, api_key: str) -> Endpoint:
    """Deploy the LLMInferenceService with its Gateway and await its first completion through that.

    Args:
        cluster: where; its GatewayClass is that of the path's own Gateway, and a `gateway_url` is that Gateway's.
        spec: what; the path lives in a namespace of its own beside the spec's.
        api_key: the key that the engines will demand.

    Returns:
        The endpoint: its base URL ends in the prefix that the route takes from each request, and no Host is needed.

    Raises:
        UsageError: the spec cannot be.
        ClusterError: the controller, its presets or free GPUs are missing, before anything is applied; or the real
            cause why no completion came.
    """
    started = time.monotonic()
    check_llmd(spec)
    async with kubernetes(cluster) as client:
        objects = await apply_llmd(client, cluster, spec, api_key)
        own = await connect(
            cluster.kubeconfig,
            cluster.registry,
            cluster.gateway_class,
            context=cluster.context,
            gateway_namespace=llmd_namespace(spec.namespace),
            gateway_name=llmd_name(spec.name),
            gateway_url=cluster.gateway_url,
            timeout_s=_GATEWAY_TIMEOUT_S,
        )
        through = replace(own, gateway_url=f"{own.gateway_url}{url_path(spec)}")
        await await_ready(client, through, expect_llmd(spec, objects), api_key)
    return Endpoint(
        path=DeployPath.LLMD,
        base_url=through.gateway_url,
        host="",
        model=spec.served_model_name,
        namespace=llmd_namespace(spec.namespace),
        workload=deployment_of(spec.name),
        modelcar_digest=spec.modelcar_reference.partition("@")[2],
        engine_image=spec.engine_image,
        ready_s=time.monotonic() - started,
        api_key=api_key,
    )


async def apply_llmd(client: AsyncClient, cluster: Cluster, spec: ServingSpec, api_key: str) -> tuple[Json, ...]:
    """Apply the path's objects and its Secret, and await nothing. A path that was stopped is started by it.

    Returns:
        The objects as applied, the Secret not among them.

    Raises:
        UsageError: the spec or the key cannot be.
        ClusterError: the cluster cannot run it, or the API server or the controller's webhook refuses.
    """
    objects = await render_llmd(spec, cluster.gateway_class)
    service = _service_of(objects)
    name, namespace = llmd_name(spec.name), llmd_namespace(spec.namespace)
    await check_installed(client)
    live = await read(client, KIND, name, namespace)
    known = await read(client, "Secret", name, namespace)
    running = None if live is None or _is_stopped(live) else live
    engines = new_engines(service, running, same_key=_key_of(known) == api_key)
    await check_gpus(client, service, engines)
    # On the pods: what tells this revision's Deployment from the one before, which the controller changes later.
    service["spec"]["annotations"] = {
        **await apply_key(client, name, namespace, api_key),
        "servepath.dev/modelcar-digest": spec.modelcar_reference.partition("@")[2],
    }
    for obj in objects:
        if obj["kind"] != "Namespace":
            await apply(client, obj)
    if live is not None and _is_stopped(live):
        # An apply leaves alone what it does not name.
        start = {"metadata": {"annotations": {STOP_ANNOTATION: None}}}
        with errors_of(f"{KIND} {namespace}/{name}"):
            await client.patch(KINDS[KIND], name, start, namespace=namespace, patch_type=PatchType.MERGE)
    return objects


def expect_llmd(spec: ServingSpec, objects: tuple[Json, ...]) -> Expectation:
    """Say what must become ready, from the objects as applied."""
    service = _service_of(objects)
    container = container_of(service)
    return Expectation(
        path=DeployPath.LLMD,
        namespace=llmd_namespace(spec.namespace),
        name=llmd_name(spec.name),
        deployment=deployment_of(spec.name),
        selector=pods_of(spec.name),
        container={**container, "args": [_filled(one, spec) for one in container["args"]]},
        host="",
        model=spec.served_model_name,
        timeout_s=spec.profile.startup_timeout_s,
        request_timeout_s=min(spec.profile.request_timeout_s, FIRST_COMPLETION_S),
        patience_s=spec.profile.patience_s,
        annotations=service["spec"]["annotations"],
    )


async def delete_llmd(cluster: Cluster, namespace: str, name: str) -> tuple[str, ...]:
    """Delete the path's objects that carry servepath's label, and await that they and their pods are gone.

    The Gateway goes too: it is the path's own. The namespace stays.

    Args:
        cluster: where.
        namespace: the namespace of the other paths.
        name: the base name that it was deployed under.

    Returns:
        What was deleted.

    Raises:
        ClusterError: the API server refuses, or an object is still there after three minutes.
    """
    own = llmd_namespace(namespace)
    async with kubernetes(cluster) as client:
        deleted = [kind for kind in _DELETED_KINDS if await delete_one(client, kind, own, llmd_name(name))]
        for kind in deleted:
            await until_gone(client, kind, own, llmd_name(name), timeout_s=_DELETE_TIMEOUT_S)
    return tuple(f"{kind} {llmd_name(name)}" for kind in deleted)


def _service_of(objects: tuple[Json, ...]) -> Json:
    return next(obj for obj in objects if obj["kind"] == KIND)


def _filled(argument: str, spec: ServingSpec) -> str:
    """Give an argument as the controller fills it in: the manifest's args are templates to it."""
    return argument.replace("{{ .Spec.Model.Name }}", spec.served_model_name).replace(
        "{{ .ObjectMeta.Namespace }}", llmd_namespace(spec.namespace)
    )


def _is_stopped(live: Json) -> bool:
    annotations = live["metadata"].get("annotations") or {}
    return str(annotations.get(STOP_ANNOTATION, "")).lower() == "true"


def _key_of(secret: Json | None) -> str:
    return "" if secret is None else base64.b64decode(secret["data"]["VLLM_API_KEY"]).decode()
