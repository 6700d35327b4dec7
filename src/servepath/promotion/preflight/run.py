"""What a promotion needs of a cluster, looked for before anything is created: all that is missing in one list.

Nothing is created and nothing is changed: what is asked is read, except for reviews of the caller's own rights and one
dry run that KServe's webhook must refuse, which leave nothing behind. A promotion that acts may let a pod try the
registry, and begin an upload there.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import anyio
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Node, Pod, ResourceQuota
from lightkube.resources.storage_v1 import StorageClass

from servepath.cluster.client import errors_of, kubectl_for, kubernetes
from servepath.cluster.objects import KINDS, read
from servepath.errors import ClusterError, ServepathError
from servepath.evidence import CheckResult, Verdict
from servepath.gke.apis import read_quotas
from servepath.gke.connect import lasting
from servepath.modelcar.registry.client import RegistryOptions
from servepath.platform import checking
from servepath.promotion.preflight.access import accesses, check_access
from servepath.promotion.preflight.capacity import check_disk, check_nodes, may_run, rooms_of
from servepath.promotion.preflight.needs import Needs, needs_of
from servepath.promotion.preflight.probe import probe_registry
from servepath.promotion.preflight.push import check_push
from servepath.promotion.preflight.quota import check_regional_quota, check_resource_quotas
from servepath.promotion.preflight.registry import check_registry
from servepath.promotion.preflight.results import judged, missing, there, untold
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.render import GatewayRef, render

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.cluster.objects import Json
    from servepath.gke.connect import GkeSession
    from servepath.gke.model import ArtifactRepository, GkeFacts

OLDEST = (1, 30)
"""Of Kubernetes: `preStop.sleep`, with which an engine leaves the gateway before it stops, is in 1.30 and newer."""
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"

Found = tuple[CheckResult, ...]


@dataclass(frozen=True, slots=True)
class _Subject:
    """What preflight looks at: the cluster as read, and what is to be applied to it."""

    client: AsyncClient
    cluster: Cluster
    spec: ServingSpec
    needs: Needs
    gke: GkeSession | None
    registries: RegistryOptions
    image_bytes: int
    may_start_a_pod: bool

    @property
    def kubectl(self) -> str:
        """Kubectl for this cluster, as a fixing command begins."""
        return kubectl_for(self.cluster, "kubectl ").rstrip()


async def preflight(  # noqa: PLR0913
    cluster: Cluster,
    spec: ServingSpec,
    paths: Sequence[ServingPath] = tuple(ServingPath),
    *,
    image_bytes: int = 0,
    gke: GkeSession | None = None,
    registries: RegistryOptions | None = None,
    may_start_a_pod: bool = False,
) -> Found:
    """Look for everything that a promotion needs, and change nothing.

    Args:
        cluster: where; its gateway URL need not be known.
        spec: what is to be deployed.
        paths: how; the pods of all of them must find a node at the same time.
        image_bytes: what the registry holds of the model and the engine together; 0 where it is not known.
        gke: the session of a GKE cluster, which tells of its node pools and quotas too.
        registries: how registries are talked to.
        may_start_a_pod: begin an upload to the registry and end it again; and where nothing else tells whether the
            nodes reach it, let a pod try, which pulls nothing and is deleted again. For a promotion that acts.

    Returns:
        One result for each thing: `pass`, `fail` with the command that fixes it, or `skip` with the reason why it
        cannot be told. Nothing that is missing is raised: `refuse_missing` does that.

    Raises:
        UsageError: the spec cannot be rendered.
    """
    gateway = GatewayRef(cluster.gateway_namespace, cluster.gateway_name)
    objects = [obj for path in paths for obj in await render(spec, path, gateway=gateway)]
    needs = needs_of(objects)
    try:
        version = await _timed(lambda: _version(cluster, gke))
        async with kubernetes(cluster) as client:
            settings = registries or RegistryOptions()
            subject = _Subject(client, cluster, spec, needs, gke, settings, image_bytes, may_start_a_pod)
            found = (*version, *await _all(subject))
    except ClusterError as error:
        unreachable = missing("api_server_answers", "the Kubernetes API", str(error), error.next_command)
        found = (unreachable,)
    if gke is None:
        return found
    return tuple(replace(result, next_command=lasting(result.next_command, gke)) for result in found)


async def _all(subject: _Subject) -> Found:
    """Run the groups; one that the API server refuses is missing as a whole, and the others are still told."""
    results: list[CheckResult] = []
    for group in (_access, _platform, _nodes, _quotas, _storage):
        results += await _timed(lambda group=group: group(subject))  # type: ignore[misc]
    return tuple(results)


async def _timed(look: Callable[[], Awaitable[Found]]) -> Found:
    start = time.monotonic()
    results = await look()
    return tuple(replace(result, duration_s=result.duration_s or time.monotonic() - start) for result in results)


async def _version(cluster: Cluster, gke: GkeSession | None) -> Found:
    command = kubectl_for(cluster, "kubectl get --raw /version")
    done = await anyio.run_process(shlex.split(command), check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ClusterError(said[-1] if said else "no answer", where="/version", next_command=command)
    told = json.loads(done.stdout)
    found = tuple(int(re.sub(r"\D", "", told[part]) or 0) for part in ("major", "minor"))
    oldest = ".".join(str(part) for part in OLDEST)
    upgrade = kubectl_for(cluster, "kubectl version")
    if gke is not None:
        target = gke.facts.target
        upgrade = f"gcloud container clusters upgrade {target.name} {target.gcloud} --master --cluster-version {oldest}"
    expected = f"Kubernetes {oldest} or newer"
    return (judged("kubernetes_version", expected, told["gitVersion"], upgrade, is_there=found >= OLDEST),)


async def _access(subject: _Subject) -> Found:
    cluster = subject.cluster
    wanted = accesses(
        subject.needs.objects, subject.spec.namespace, cluster.gateway_namespace, checking.KSERVE_NAMESPACE
    )
    return await check_access(subject.client, wanted, subject.kubectl)


async def _platform(subject: _Subject) -> Found:
    """Check what servepath itself installs, with the command that installs it as the fix of each."""
    cluster = subject.cluster
    options = f"--kubeconfig {cluster.kubeconfig} --gateway-class {cluster.gateway_class}"
    context = f" --context {cluster.context}" if cluster.context else ""
    install = f"servepath platform {options}{context} --apply"
    return tuple(
        replace(result, next_command=install) if result.verdict is Verdict.FAIL else result
        for result in await checking.check(cluster)
    )


async def _nodes(subject: _Subject) -> Found:
    facts = subject.gke.facts if subject.gke else None
    repository = subject.gke.repository if subject.gke else None
    try:
        nodes = await _list(subject.client, Node)
    except ClusterError as error:
        return (untold("nodes", "nodes that suit", str(error), f"{subject.kubectl} get nodes"),)
    try:
        pods = await _list(subject.client, Pod, namespace="*")
    except ClusterError:
        pods = []
    rooms = rooms_of(nodes, pods, subject.needs)
    placed, growing = check_nodes(subject.needs, rooms, subject.kubectl, facts)
    disk = check_disk(subject.needs, nodes, subject.image_bytes, kubectl=subject.kubectl, facts=facts)
    registry = await _registry(subject, nodes, facts, repository)
    results = (*placed, disk, *registry)
    if subject.gke is None or not growing:
        return results
    try:
        quotas = await read_quotas(subject.gke.google, subject.gke.facts.target)
    except ServepathError as error:
        return (*results, untold("quota_of_the_region", "room in the region's quota", error.what, error.next_command))
    return (*results, *check_regional_quota(growing, quotas, subject.gke.facts))


async def _registry(
    subject: _Subject, nodes: Sequence[Json], facts: GkeFacts | None, repository: ArtifactRepository | None
) -> Found:
    image = subject.spec.modelcar_reference.partition("@")[0]
    told = check_registry(image, subject.needs, nodes, facts, repository)
    if not subject.may_start_a_pod:
        return (told,)
    pushing = await check_push(subject.spec.modelcar_reference, subject.registries)
    if told.verdict is not Verdict.SKIP:
        return (told, pushing.result)
    pulled = await probe_registry(
        subject.client,
        subject.spec.namespace,
        image,
        subject.kubectl,
        nodes=[node["metadata"]["name"] for node in nodes if any(may_run(node, pod) for pod in subject.needs.pods)],
        fix=told.next_command,
        may_be_made=pushing.may_make_it,
    )
    return (pulled, pushing.result)


async def _quotas(subject: _Subject) -> Found:
    try:
        quotas = await _list(subject.client, ResourceQuota, namespace=subject.spec.namespace)
        present = [await _present(subject.client, obj) for obj in subject.needs.objects] if quotas else []
    except ClusterError as error:
        command = f"{subject.kubectl} -n {subject.spec.namespace} get resourcequotas"
        return (untold("quota_of_the_namespace", "room in the namespace's quotas", str(error), command),)
    replaced = needs_of([obj for obj in present if obj is not None])
    return check_resource_quotas(subject.needs, quotas, replaced, subject.kubectl)


async def _present(client: AsyncClient, obj: Any) -> Json | None:
    if obj["kind"] not in KINDS:
        return None
    return await read(client, obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace"))


async def _storage(subject: _Subject) -> Found:
    """Look for the StorageClass of claims that name none."""
    if not subject.needs.volume_bytes:
        return ()
    name, expected = "default_storage_class", "a default StorageClass, for the volume of the raw path"
    try:
        classes = await _list(subject.client, StorageClass)
    except ClusterError as error:
        return (untold(name, expected, str(error), f"{subject.kubectl} get storageclasses"),)
    default = [one for one in classes if (one["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"]
    if default:
        return (there(name, expected, default[0]["metadata"]["name"]),)
    first = classes[0]["metadata"]["name"] if classes else "NAME"
    annotate = f"{subject.kubectl} annotate storageclass {first} {_DEFAULT_CLASS}=true"
    seen = "none of them is the default" if classes else "there is no StorageClass"
    return (missing(name, expected, seen, annotate),)


async def _list(client: AsyncClient, resource: Any, **scope: Any) -> list[Json]:
    with errors_of(resource.__name__):
        try:
            return [obj.to_dict() async for obj in client.list(resource, **scope)]
        except ApiError as error:
            if error.status.code == HTTPStatus.NOT_FOUND:
                return []
            raise
