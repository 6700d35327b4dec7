"""Whether the caller may do what a promotion does: one SelfSubjectAccessReview for each verb."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lightkube.core.exceptions import ApiError
from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.resources.authentication_v1 import SelfSubjectReview
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview

from servepath.cluster.client import errors_of
from servepath.parallel import run_all
from servepath.promotion.inventory import API_VERSIONS, RESOURCES
from servepath.promotion.preflight.results import judged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lightkube import AsyncClient
    from lightkube.models.authentication_v1 import SelfSubjectReviewStatus

    from servepath.evidence import CheckResult

READ = ("get", "list", "watch")
WRITE = (*READ, "create", "update", "patch", "delete")
_CALLS = 8
_SCALERS = {("autoscaling", "horizontalpodautoscalers"), ("keda.sh", "scaledobjects")}
"""Looked for at every deployment, that none of another class is left; who may not look is told so before "absent"."""
RELEASE_ROLE = "servepath-promoter"
PLATFORM_ROLE = "servepath-promoter-platform"
CLUSTER_ROLE = "servepath-promoter-cluster"


@dataclass(frozen=True, slots=True)
class Access:
    """Verbs on one kind of object.

    Attributes:
        group: the API group, empty for the core.
        resource: its plural, with its subresource if any: `pods/log`.
        verbs: what is done.
        namespace: where; empty for the whole cluster.
        role: the ClusterRole of `manifests/promotion/access` that allows it.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    namespace: str = ""
    role: str = CLUSTER_ROLE

    @property
    def name(self) -> str:
        """The name that kubectl takes: `deployments.apps`."""
        plain, _, sub = self.resource.partition("/")
        return (f"{plain}.{self.group}" if self.group else plain) + (f"/{sub}" if sub else "")


def accesses(
    objects: Iterable[Mapping[str, Any]], namespace: str, gateway_namespace: str, kserve_namespace: str
) -> tuple[Access, ...]:
    """Give all that a promotion does: to what it applies and puts back, to its records, and to what it reads.

    Args:
        objects: what is applied, as rendered.
        namespace: where.
        gateway_namespace: the namespace of the Gateway.
        kserve_namespace: the namespace of KServe's configuration.
    """
    made = [{"apiVersion": API_VERSIONS[kind], "kind": kind} for kind in RESOURCES]
    applied = {_resource_of(obj) for obj in (*made, *objects) if obj["kind"] != "Namespace"} | _SCALERS
    ours, platform = partial(_in, namespace, RELEASE_ROLE), partial(_in, kserve_namespace, PLATFORM_ROLE)
    return (
        *(ours(group, resource, *WRITE) for group, resource in sorted(applied)),
        ours("coordination.k8s.io", "leases", "get", "create", "update", "patch", "delete"),
        ours("", "pods", *READ, "create", "delete"),
        ours("", "pods/log", "get"),
        ours("", "pods/exec", "get", "create"),
        ours("", "pods/proxy", "get"),
        ours("", "events", "list"),
        ours("", "resourcequotas", "list"),
        ours("apps", "replicasets", *READ),
        _in(gateway_namespace, PLATFORM_ROLE, "gateway.networking.k8s.io", "gateways", *READ),
        platform("", "configmaps", "get"),
        platform("serving.kserve.io", "inferenceservices", "create"),
        Access("", "namespaces", ("get", "create")),
        Access("", "nodes", ("list",)),
        Access("", "pods", ("list",)),
        Access("apiextensions.k8s.io", "customresourcedefinitions", ("get",)),
        Access("gateway.networking.k8s.io", "gatewayclasses", ("get",)),
        Access("storage.k8s.io", "storageclasses", ("list",)),
    )


def _in(namespace: str, role: str, group: str, resource: str, *verbs: str) -> Access:
    return Access(group, resource, verbs, namespace, role)


async def check_access(client: AsyncClient, wanted: Sequence[Access], kubectl: str) -> tuple[CheckResult, ...]:
    """Ask the API server for each verb.

    Args:
        client: the Kubernetes client.
        wanted: what is done.
        kubectl: kubectl with its kubeconfig, as the fixing command begins.

    Returns:
        One result for each kind of object.

    Raises:
        ClusterError: the API server does not answer.
    """
    pairs = [(access, verb) for access in wanted for verb in access.verbs]
    answers = await run_all([partial(_may, client, access, verb) for access, verb in pairs], _CALLS)
    denied: dict[Access, list[str]] = {}
    for (access, verb), is_allowed in zip(pairs, answers, strict=True):
        if not is_allowed:
            denied.setdefault(access, []).append(verb)
    who = await _who(client) if denied else ""
    return tuple(_result(access, denied.get(access, []), kubectl, who) for access in wanted)


def _result(access: Access, denied: Sequence[str], kubectl: str, who: str) -> CheckResult:
    place = f"in {access.namespace}" if access.namespace else "in the whole cluster"
    scope = access.namespace.replace("-", "_") or "cluster"
    kind = access.name.replace("/", "_").replace(".", "_")
    return judged(
        f"may_use_{kind}_in_{scope}",
        f"{', '.join(access.verbs)} of {access.name} {place}",
        f"no {', '.join(denied)}" if denied else "allowed",
        _grant(access, kubectl, who),
        is_there=not denied,
    )


def _grant(access: Access, kubectl: str, who: str) -> str:
    """Give the commands for an administrator: the roles that servepath brings, bound to the caller."""
    kind, scope = ("rolebinding", f" -n {access.namespace}") if access.namespace else ("clusterrolebinding", "")
    bind = f"{kubectl}{scope} create {kind} {access.role} --clusterrole={access.role} {who}"
    return f"{kubectl} apply -k manifests/promotion/access && {bind}"


async def _may(client: AsyncClient, access: Access, verb: str) -> bool:
    resource, _, sub = access.resource.partition("/")
    attributes = ResourceAttributes(
        group=access.group, resource=resource, subresource=sub, verb=verb, namespace=access.namespace
    )
    review = SelfSubjectAccessReview(spec=SelfSubjectAccessReviewSpec(resourceAttributes=attributes))
    with errors_of("SelfSubjectAccessReview"):
        answer = await client.create(review)
    return bool(answer.status and answer.status.allowed)


async def _who(client: AsyncClient) -> str:
    """Give the caller as kubectl's bindings name it, `--user=EMAIL` where the API server does not tell."""
    try:
        status = (await client.create(SelfSubjectReview())).status
    except ApiError:
        status = None
    name = _name_of(status)
    parts = name.split(":")
    if parts[:2] == ["system", "serviceaccount"]:
        return f"--serviceaccount={':'.join(parts[2:])}"
    return f"--user={name}"


def _name_of(status: SelfSubjectReviewStatus | None) -> str:
    return (status.userInfo.username if status and status.userInfo else None) or "EMAIL"


def _resource_of(obj: Mapping[str, Any]) -> tuple[str, str]:
    group, slash, _ = obj["apiVersion"].partition("/")
    kind = str(obj["kind"]).lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return (group if slash else ""), plural
