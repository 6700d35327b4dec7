"""A path that is already deployed -> its `ServingSpec` and `Endpoint`, read from the cluster's own objects."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from servepath.cluster.client import kubernetes
from servepath.cluster.objects import Json, place, read
from servepath.errors import ClusterError
from servepath.serving.completion import FIRST_COMPLETION_S
from servepath.serving.model import Endpoint, Profile, ServingPath, ServingSpec
from servepath.serving.readiness import Expectation, host_when_ready
from servepath.serving.render import engine_container
from servepath.serving.slots import STABLE_ANNOTATION, Slot, route_name, slot_name
from servepath.serving.stopped import ENGINE_KIND, deployment_name, is_stopped, pod_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster

_MODEL_NAME = "--served-model-name="


async def find(
    cluster: Cluster, namespace: str, name: str, path: ServingPath, profile: Profile
) -> tuple[ServingSpec, Endpoint]:
    """Find what `servepath deploy` left; on the KServe path, what its last canary left: the stable slot.

    Args:
        cluster: where.
        namespace: the namespace of the serving paths.
        name: the base name that they were deployed under.
        path: which of them.
        profile: what it was deployed with: the cluster does not know its name.

    Raises:
        ClusterError: the path is not deployed, not ready, or not as servepath deploys it.
    """
    async with kubernetes(cluster) as client:
        return await find_with(client, cluster, namespace, name, path, profile)


async def find_with(  # noqa: PLR0913, PLR0917
    client: AsyncClient, cluster: Cluster, namespace: str, name: str, path: ServingPath, profile: Profile
) -> tuple[ServingSpec, Endpoint]:
    """Find the same by a client that is open already."""
    route = await read(client, "HTTPRoute", route_name(name), namespace) if path is ServingPath.KSERVE else None
    deployed = name if route is None else slot_name(name, _stable_slot(route))
    engine = await _read(client, namespace, ENGINE_KIND[path], f"{deployed}-{path}")
    with _as_deployed(engine):
        _refuse_stopped(engine, path)
        host = await _host(client, engine, path) if route is None else str(route["spec"]["hostnames"][0])
        return await _found(client, cluster, engine, path, profile, name=name, host=host)


async def expectation_of(client: AsyncClient, engine: Json, path: ServingPath, profile: Profile) -> Expectation:
    """Say what must become ready of a path that is deployed, stopped or not.

    Args:
        client: the Kubernetes client.
        engine: the object that carries the engine: the Deployment or the InferenceService.
        path: which path it is.
        profile: whose budgets of time are used.

    Raises:
        ClusterError: its route is missing, or it is not as servepath deploys it.
    """
    metadata = engine["metadata"]
    with _as_deployed(engine):
        container = engine_container(engine, path)
        return Expectation(
            path=path,
            namespace=metadata["namespace"],
            name=metadata["name"],
            deployment=deployment_name(engine, path),
            selector=pod_labels(engine, path),
            container=container,
            host=await _host_of_route(client, engine) if path is ServingPath.RAW else "",
            model=model_name(container, engine),
            timeout_s=profile.startup_timeout_s,
            request_timeout_s=min(profile.request_timeout_s, FIRST_COMPLETION_S),
            patience_s=profile.patience_s,
        )


def _stable_slot(route: Json) -> Slot:
    """Read which slot the route of a canary names as the stable one."""
    annotations = route["metadata"].get("annotations") or {}
    try:
        return Slot(annotations.get(STABLE_ANNOTATION, ""))
    except ValueError as error:
        raise ClusterError(
            f"its annotation {STABLE_ANNOTATION} is {annotations.get(STABLE_ANNOTATION)!r}",
            where=place(route),
            expected=" or ".join(Slot),
        ) from error


async def _found(  # noqa: PLR0913
    client: AsyncClient, cluster: Cluster, engine: Json, path: ServingPath, profile: Profile, *, name: str, host: str
) -> tuple[ServingSpec, Endpoint]:
    """Put together what the objects around the engine's say."""
    namespace = engine["metadata"]["namespace"]
    api_key = await api_key_of(client, engine, path)
    container = engine_container(engine, path)
    spec = ServingSpec(
        namespace=namespace,
        name=name,
        served_model_name=model_name(container, engine),
        modelcar_reference=modelcar_reference(engine, path),
        engine_image=container["image"],
        profile=profile,
        domain=host.partition(".")[2],
    )
    endpoint = Endpoint(
        path=path,
        base_url=cluster.gateway_url,
        host=host,
        model=spec.served_model_name,
        namespace=namespace,
        workload=deployment_name(engine, path),
        modelcar_digest=spec.modelcar_reference.partition("@")[2],
        engine_image=spec.engine_image,
        ready_s=0.0,
        api_key=api_key,
    )
    return spec, endpoint


@contextmanager
def _as_deployed(engine: Json) -> Iterator[None]:
    """Refuse an object of the right name that servepath did not make, or that was changed since."""
    try:
        yield
    except (KeyError, IndexError, TypeError) as error:
        metadata = engine["metadata"]
        raise ClusterError(
            f"not as servepath deploys it: {type(error).__name__} {error}",
            where=f"{metadata['namespace']}/{metadata['name']}",
            next_command="servepath deploy --help",
        ) from error


async def _read(client: AsyncClient, namespace: str, kind: str, name: str) -> Json:
    found = await read(client, kind, name, namespace)
    if found is None:
        raise ClusterError("not deployed", where=f"{kind} {namespace}/{name}", next_command="servepath deploy --help")
    return found


async def _host(client: AsyncClient, engine: Json, path: ServingPath) -> str:
    name, namespace = engine["metadata"]["name"], engine["metadata"]["namespace"]
    if path is ServingPath.RAW:
        return await _host_of_route(client, engine)
    host = host_when_ready(engine)
    if host is None:
        raise ClusterError(
            "not ready",
            where=f"InferenceService {namespace}/{name}",
            next_command=f"kubectl -n {namespace} describe inferenceservice {name}",
        )
    return host


async def _host_of_route(client: AsyncClient, engine: Json) -> str:
    route = await _read(client, engine["metadata"]["namespace"], "HTTPRoute", engine["metadata"]["name"])
    return str(route["spec"]["hostnames"][0])


def _refuse_stopped(engine: Json, path: ServingPath) -> None:
    if is_stopped(engine, path):
        metadata = engine["metadata"]
        raise ClusterError(
            "stopped",
            where=f"{ENGINE_KIND[path]} {metadata['namespace']}/{metadata['name']}",
            next_command=f"servepath start --path {path} --namespace {metadata['namespace']} "
            f"--name {metadata['name'].removesuffix(f'-{path}')}",
        )


async def api_key_of(client: AsyncClient, engine: Json, path: ServingPath) -> str:
    """Read the key that a path's engine demands from the Secret that it names, empty where it names none.

    Raises:
        ClusterError: the Secret is missing.
    """
    for variable in engine_container(engine, path).get("env", ()):
        if variable["name"] == "VLLM_API_KEY":
            reference = variable["valueFrom"]["secretKeyRef"]
            secret = await _read(client, engine["metadata"]["namespace"], "Secret", reference["name"])
            return base64.b64decode(secret["data"][reference["key"]]).decode()
    return ""


def model_name(container: Mapping[str, Any], engine: Json) -> str:
    """Give the name that an engine is told to serve its model under.

    Raises:
        ClusterError: it is told none.
    """
    for argument in container.get("args", ()):
        if argument.startswith(_MODEL_NAME):
            return str(argument.removeprefix(_MODEL_NAME))
    raise ClusterError(
        "the engine is not told its model's name",
        where=engine["metadata"]["name"],
        expected=f"an argument {_MODEL_NAME}…",
        next_command="servepath deploy --help",
    )


def modelcar_reference(engine: Json, path: ServingPath) -> str:
    """Give the modelcar that a path was deployed with, `host/repository@sha256:…`."""
    if path is ServingPath.RAW:
        return str(engine["spec"]["template"]["spec"]["initContainers"][0]["image"])
    variables = {one["name"]: one.get("value", "") for one in engine_container(engine, path)["env"]}
    return str(variables["STORAGE_URI"]).removeprefix("oci://")
