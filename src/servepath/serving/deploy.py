"""Apply a serving path, await its first completion, and delete what was applied. Doing it again changes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lightkube.core.exceptions import ApiError
from lightkube.types import CascadeType

from servepath.cluster.client import errors_of, kubernetes
from servepath.cluster.objects import KINDS, Json, apply, is_ours, read
from servepath.cluster.wait import until_gone
from servepath.errors import UsageError
from servepath.serving.autoscaling import AUTOSCALER_KINDS
from servepath.serving.completion import FIRST_COMPLETION_S
from servepath.serving.keys import apply_key
from servepath.serving.model import Endpoint, ServingPath, ServingSpec
from servepath.serving.readiness import Expectation, await_ready
from servepath.serving.render import CLOSED, GatewayRef, engine_container, host_of, object_name, render
from servepath.serving.scalers import kept_awake, require_scaler, retire_scalers
from servepath.serving.slots import STABLE_ANNOTATION, Slot, route_name
from servepath.serving.stopped import ENGINE_KIND, deployment_name, is_stopped
from servepath.serving.switch import set_stopped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster

_DELETE_TIMEOUT_S = 180.0
_DELETED_KINDS = (
    *AUTOSCALER_KINDS,
    "InferenceService",
    "HTTPRoute",
    "Deployment",
    "Service",
    "PersistentVolumeClaim",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Secret",
)
_NOT_FOUND = 404


async def deploy_raw(cluster: Cluster, spec: ServingSpec, api_key: str) -> Endpoint:
    """Deploy raw vLLM and await its first completion through the gateway.

    Args:
        cluster: where.
        spec: what.
        api_key: the key that the engine will demand; it goes into a Secret and nowhere else.

    Raises:
        UsageError: the spec or the key cannot be.
        ClusterError: with the real cause.
    """
    started = time.monotonic()
    async with kubernetes(cluster) as client:
        expected = expect_raw(spec, await apply_raw(client, cluster, spec, api_key))
        async with kept_awake(client, spec.namespace, expected.deployment, spec.profile.autoscaling):
            host = await await_ready(client, cluster, expected, api_key)
    return _endpoint(
        cluster,
        spec,
        ServingPath.RAW,
        host=host,
        workload=expected.deployment,
        ready_s=time.monotonic() - started,
        api_key=api_key,
    )


async def deploy_kserve(cluster: Cluster, spec: ServingSpec, api_key: str) -> Endpoint:
    """Deploy the InferenceService and await its first completion through the gateway.

    Args:
        cluster: where.
        spec: what.
        api_key: the key that the engine will demand, as on the raw path: KServe has none of its own.

    Raises:
        UsageError: the spec or the key cannot be, or a canary has moved the hostname to the other slot.
        ClusterError: with the real cause.
    """
    started = time.monotonic()
    async with kubernetes(cluster) as client:
        await _refuse_moved(client, spec)
        expected = expect_kserve(spec, await apply_kserve(client, cluster, spec, api_key))
        async with kept_awake(client, spec.namespace, expected.deployment, spec.profile.autoscaling):
            host = await await_ready(client, cluster, expected, api_key)
    return _endpoint(
        cluster,
        spec,
        ServingPath.KSERVE,
        host=host,
        workload=expected.deployment,
        ready_s=time.monotonic() - started,
        api_key=api_key,
    )


async def _refuse_moved(client: AsyncClient, spec: ServingSpec) -> None:
    """Refuse to deploy into a slot that serves nobody: the first completion would come from the other one.

    Raises:
        UsageError: the green slot is the stable one.
    """
    route = await read(client, "HTTPRoute", route_name(spec.name), spec.namespace)
    if route is not None and (route["metadata"].get("annotations") or {}).get(STABLE_ANNOTATION) != Slot.BLUE:
        raise UsageError(
            "its hostname leads to the slot green since a canary was promoted",
            where=f"{spec.namespace}/{spec.name}",
            expected="another canary, or `servepath delete` first",
            next_command="servepath canary --help",
        )


async def apply_raw(client: AsyncClient, cluster: Cluster, spec: ServingSpec, api_key: str) -> tuple[Json, ...]:
    """Apply the raw path's objects and its Secret, and await nothing. A path that was stopped is started by it.

    Returns:
        The objects as applied, the Secret not among them.

    Raises:
        UsageError: the spec or the key cannot be.
        ClusterError: the API server refuses.
    """
    objects = await render(spec, ServingPath.RAW, gateway=_gateway_of(cluster))
    await require_scaler(client, spec.profile.autoscaling)
    version = await apply_key(client, object_name(spec, ServingPath.RAW), spec.namespace, api_key)
    for obj in objects:
        if obj["kind"] == "Deployment":
            obj["spec"]["template"]["metadata"]["annotations"] = version
    await _apply_engine(client, spec, ServingPath.RAW, objects)
    return objects


async def apply_kserve(
    client: AsyncClient,
    cluster: Cluster,
    spec: ServingSpec,
    api_key: str,
    *,
    labels: Mapping[str, str] | None = None,
) -> tuple[Json, ...]:
    """Apply the KServe path's objects and its Secret, and await nothing. A service that was stopped is started by it.

    Args:
        client: the Kubernetes client.
        cluster: where.
        spec: what is served.
        api_key: the key that the engine will demand.
        labels: more labels of the InferenceService.

    Returns:
        The objects as applied, the Secret not among them.

    Raises:
        UsageError: the spec or the key cannot be.
        ClusterError: the API server or KServe's webhook refuses.
    """
    objects = await render(spec, ServingPath.KSERVE, gateway=_gateway_of(cluster))
    await require_scaler(client, spec.profile.autoscaling)
    version = await apply_key(client, object_name(spec, ServingPath.KSERVE), spec.namespace, api_key)
    for obj in objects:
        if obj["kind"] == "InferenceService":
            obj["spec"]["predictor"]["annotations"] = version
            obj["metadata"]["labels"] |= labels or {}
    await _apply_engine(client, spec, ServingPath.KSERVE, objects)
    return objects


async def _apply_engine(client: AsyncClient, spec: ServingSpec, path: ServingPath, objects: tuple[Json, ...]) -> None:
    """Apply a path's objects and start it: an apply leaves alone what it does not name, such as KServe's stop."""
    for obj in objects:
        if obj["kind"] != "Namespace":
            await apply(client, obj)
    engine = await read(client, ENGINE_KIND[path], object_name(spec, path), spec.namespace)
    if engine is None:
        return
    await retire_scalers(client, spec.namespace, deployment_name(engine, path), spec.profile.autoscaling.autoscaler)
    if is_stopped(engine, path):
        await set_stopped(client, engine, path, stopped=False)


async def delete(
    cluster: Cluster, namespace: str, name: str, paths: Sequence[ServingPath] = tuple(ServingPath)
) -> tuple[str, ...]:
    """Delete the objects of these paths that carry servepath's label, and await that they and their pods are gone.

    The namespace stays: others may have put something there.

    Args:
        cluster: where.
        namespace: the namespace of both paths.
        name: the base name that they were deployed under.
        paths: which paths, both by default.

    Returns:
        What was deleted, such as `Deployment qwen-raw`.

    Raises:
        ClusterError: the API server refuses, or an object is still there after three minutes.
    """
    candidates = [(kind, f"{name}-{path}") for path in paths for kind in _DELETED_KINDS]
    candidates += [("HTTPRoute", f"{name}-{path}{CLOSED}") for path in paths]
    async with kubernetes(cluster) as client:
        deleted = [(kind, one) for kind, one in candidates if await delete_one(client, kind, namespace, one)]
        for kind, one in deleted:
            await until_gone(client, kind, namespace, one, timeout_s=_DELETE_TIMEOUT_S)
    return tuple(f"{kind} {one}" for kind, one in deleted)


async def delete_one(client: AsyncClient, kind: str, namespace: str, name: str) -> bool:
    """Begin to delete an object that servepath made; False where there is none.

    Raises:
        ClusterError: the API server refuses.
    """
    with errors_of(f"{kind} {namespace}/{name}"):
        try:
            found = await read(client, kind, name, namespace)
            if found is None or not is_ours(found):
                return False
            # Foreground: an object is gone only when its pods are.
            await client.delete(KINDS[kind], name, namespace=namespace, cascade=CascadeType.FOREGROUND)
        except ApiError as error:
            if error.status.code == _NOT_FOUND:
                return False
            raise
    return True


def _gateway_of(cluster: Cluster) -> GatewayRef:
    return GatewayRef(cluster.gateway_namespace, cluster.gateway_name)


def expect_raw(spec: ServingSpec, objects: tuple[Json, ...]) -> Expectation:
    """Say what must become ready on the raw path, from its objects as applied."""
    deployment = _of_kind(objects, "Deployment")
    return Expectation(
        path=ServingPath.RAW,
        namespace=spec.namespace,
        name=deployment["metadata"]["name"],
        deployment=deployment["metadata"]["name"],
        selector=deployment["spec"]["selector"]["matchLabels"],
        container=engine_container(deployment, ServingPath.RAW),
        host=host_of(spec, ServingPath.RAW),
        model=spec.served_model_name,
        timeout_s=spec.profile.startup_timeout_s,
        request_timeout_s=min(spec.profile.request_timeout_s, FIRST_COMPLETION_S),
        patience_s=spec.profile.patience_s,
    )


def expect_kserve(spec: ServingSpec, objects: tuple[Json, ...]) -> Expectation:
    """Say what must become ready on the KServe path, from its objects as applied."""
    service = _of_kind(objects, "InferenceService")
    name = service["metadata"]["name"]
    return Expectation(
        path=ServingPath.KSERVE,
        namespace=spec.namespace,
        name=name,
        deployment=f"{name}-predictor",
        selector={"serving.kserve.io/inferenceservice": name},
        container=engine_container(service, ServingPath.KSERVE),
        # KServe hands them on to the pods: until its Deployment has them, it is that of the version before.
        annotations=service["spec"]["predictor"].get("annotations") or {},
        host="",
        model=spec.served_model_name,
        timeout_s=spec.profile.startup_timeout_s,
        request_timeout_s=min(spec.profile.request_timeout_s, FIRST_COMPLETION_S),
        patience_s=spec.profile.patience_s,
    )


def _of_kind(objects: tuple[Json, ...], kind: str) -> Json:
    return next(obj for obj in objects if obj["kind"] == kind)


def _endpoint(  # noqa: PLR0913
    cluster: Cluster, spec: ServingSpec, path: ServingPath, *, host: str, workload: str, ready_s: float, api_key: str
) -> Endpoint:
    return Endpoint(
        path=path,
        base_url=cluster.gateway_url,
        host=host,
        model=spec.served_model_name,
        namespace=spec.namespace,
        workload=workload,
        modelcar_digest=spec.modelcar_reference.partition("@")[2],
        engine_image=spec.engine_image,
        ready_s=ready_s,
        api_key=api_key,
    )
