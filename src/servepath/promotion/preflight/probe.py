"""A pod that tries to pull what cannot exist: its node's answer shows whether the registry is reached and lets it in.

The digest is of nothing, so that not one byte of an image is pulled: "not found" can only be said by the registry
itself, to who may read the repository. Starting a pod changes the cluster, so this is for a promotion that acts.

The pod takes no GPU, so that it starts where all are taken, but it is held to the nodes that the workload may be
scheduled to: what another one reaches proves nothing.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

import anyio
from lightkube.codecs import from_dict
from lightkube.resources.core_v1 import Pod

from servepath.cluster.client import errors_of
from servepath.cluster.objects import MANAGED_BY, OWNER
from servepath.cluster.wait import until
from servepath.errors import ClusterError
from servepath.modelcar.registry.permission import NOTHING
from servepath.modelcar.registry.reference import is_hub
from servepath.promotion.preflight.registry import NAME
from servepath.promotion.preflight.results import missing, there, untold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightkube import AsyncClient

    from servepath.cluster.objects import Json
    from servepath.evidence import CheckResult

_PULL_FAILED = frozenset({"ErrImagePull", "ImagePullBackOff"})
_NOT_FOUND = re.compile(r"not found|manifest unknown|NAME_UNKNOWN", re.IGNORECASE)
_DENIED = re.compile(r"\b40[13]\b|denied|unauthorized|forbidden", re.IGNORECASE)


async def probe_registry(  # noqa: PLR0913
    client: AsyncClient,
    namespace: str,
    repository: str,
    kubectl: str,
    *,
    nodes: Sequence[str],
    fix: str = "",
    may_be_made: bool = False,
    timeout_s: float = 120.0,
) -> CheckResult:
    """Let a node ask the registry, by a pod that never starts and is deleted again.

    Args:
        client: the Kubernetes client.
        namespace: a namespace that exists.
        repository: `host[:port]/repository`, without digest.
        kubectl: kubectl with its kubeconfig, as the command that shows more begins.
        nodes: the names of the nodes that may be asked.
        fix: the command that lets nodes in which the registry denies; else one that makes a secret for their pods.
        may_be_made: whether the repository is not there yet, as far as is known, and a push makes it.
        timeout_s: how long a node may take to answer, in seconds.
    """
    name = f"servepath-pull-{uuid.uuid4().hex[:8]}"
    expected = f"a node that pulls from {repository.partition('/')[0]}"
    show = f"{kubectl} -n {namespace} get events --field-selector reason=Failed"
    if not nodes:
        return untold(NAME, expected, "there is no node yet that the pods may run on", f"{kubectl} get nodes")
    try:
        with errors_of(f"Pod {namespace}/{name}"):
            await client.create(from_dict(_pod(namespace, name, f"{repository}@{NOTHING}", nodes)))
        try:
            node, said = await until(
                client, "Pod", namespace, name, _answer, timeout_s=timeout_s, expected="an answer to a pull"
            )
        finally:
            with anyio.CancelScope(shield=True), errors_of(f"Pod {namespace}/{name}"):
                await client.delete(Pod, name, namespace=namespace, grace_period=0)
    except ClusterError as error:
        return untold(NAME, expected, error.what, show)
    let_in = fix or pull_secret(kubectl, namespace, repository)
    return judge_pull(node, said, expected, show, let_in, may_be_made=may_be_made)


def judge_pull(  # noqa: PLR0913
    node: str, said: str, expected: str, show: str, let_in: str, *, may_be_made: bool = False
) -> CheckResult:
    """Tell from a kubelet's words about a pull of nothing whether the registry was reached and let the node in.

    Args:
        node: whose kubelet.
        said: what it said.
        expected: what was expected, in words.
        show: the command that shows more.
        let_in: the command that lets in who is denied.
        may_be_made: whether the repository may be one that is not there yet: ghcr.io, Docker Hub and others deny it to
            everybody who may not push, so that nothing is known of what they will say once it is there.
    """
    said = said.rpartition("failed to resolve")[2][-300:]
    if _DENIED.search(said) and may_be_made:
        seen = "the registry denies it to node {}, as it may while the repository is not there; the copy makes it, and "
        return untold(
            NAME, expected, f"{seen.format(node)}if it is private then, no pod starts without a secret", let_in
        )
    if _DENIED.search(said):
        return missing(NAME, expected, f"the registry does not let node {node} in: {said}", let_in)
    if _NOT_FOUND.search(said):
        return there(NAME, expected, f"node {node} was answered by it")
    return missing(NAME, expected, f"node {node} does not reach it: {said}", show)


def pull_secret(kubectl: str, namespace: str, repository: str) -> str:
    """Give the command that lets a namespace's pods pull with a token, by the service account that they run as.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account, "Add ImagePullSecrets".
    """
    host = repository.partition("/")[0]
    server = "https://index.docker.io/v1/" if is_hub(host) else host  # as kubelets look Docker Hub up
    named = '{"imagePullSecrets":[{"name":"servepath-pull"}]}'
    return (
        f"{kubectl} -n {namespace} create secret docker-registry servepath-pull --docker-server={server} "
        f"--docker-username=USER --docker-password=TOKEN && "
        f"{kubectl} -n {namespace} patch serviceaccount default -p '{named}'"
    )


def _answer(pod: Json | None) -> tuple[str, str] | None:
    """Give the node and what it says of the pull, None before it says anything."""
    statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or ()
    waiting = [one["state"]["waiting"] for one in statuses if (one.get("state") or {}).get("waiting")]
    for one in waiting:
        if pod is not None and one.get("reason") in _PULL_FAILED and one.get("message"):
            return str(pod["spec"]["nodeName"]), str(one["message"])
    return None


def _pod(namespace: str, name: str, image: str, nodes: Sequence[str]) -> dict[str, Any]:
    # The scheduler ORs the terms, and takes one name in each. It is asked for a place like any other pod: a node that
    # went meanwhile, or that has no room, is not taken.
    named = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]} for node in nodes]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": named}}
    container = {
        "name": "pull",
        "image": image,
        "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {MANAGED_BY: OWNER}},
        "spec": {
            "containers": [container],
            "affinity": {"nodeAffinity": required},
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 300,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        },
    }
