"""Whether the nodes can pull from the registry, as far as that can be told without starting a pod.

Kubernetes has no way to ask a node whether it reaches an address. What is told here is what leaves a trace: a node that
has pulled from the same repository before, and on GKE the right of the nodes' own credentials. Where neither tells, the
answer is that it is not known; `probe` then lets a pod try, which only a promotion that acts does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servepath.promotion.preflight.results import missing, there, untold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from servepath.evidence import CheckResult
    from servepath.gke.model import ArtifactRepository, GkeFacts, NodePool

NAME = "registry_for_the_nodes"
_SCOPES = ("cloud-platform", "devstorage.read_only", "devstorage.read_write", "devstorage.full_control")


def check_registry(
    image: str,
    nodes: Iterable[Mapping[str, Any]],
    facts: GkeFacts | None = None,
    repository: ArtifactRepository | None = None,
) -> CheckResult:
    """Look for a trace of the repository on the nodes.

    Another image of the same host proves nothing: a host has repositories of many owners, and of each it is decided
    anew who may read it. Artifact Registry decides that for all images of one of its repositories together.

    Args:
        image: `host[:port]/repository`, without digest.
        nodes: the cluster's nodes.
        facts: what Google says of the cluster.
        repository: a repository of Artifact Registry; it counts if the image will be in it.
    """
    within = f"{repository.registry}/{repository.path}" if repository is not None else ""
    if not image.startswith(f"{within}/"):
        repository = None
    expected = f"nodes that pull from {image if repository is None else within}"
    known = (f"{image}@", f"{image}:") if repository is None else f"{within}/"
    for node in nodes:
        pulled = (node.get("status") or {}).get("images") or ()
        if any(name.startswith(known) for one in pulled for name in one.get("names") or ()):
            return there(NAME, expected, f"node {node['metadata']['name']} has pulled from it")
    if facts is not None and repository is not None:
        return _by_rights(facts, repository, expected)
    return untold(NAME, expected, "no node has an image of it: only a pod will show whether it is reached")


def _by_rights(facts: GkeFacts, repository: ArtifactRepository, expected: str) -> CheckResult:
    """Judge the scopes of the nodes: what a role of the project grants, its administrator alone can read."""
    target = facts.target
    pools = [pool for pool in facts.pools if pool.accelerators] or list(facts.pools)
    shut = [pool for pool in pools if pool.oauth_scopes and not _may_read(pool.oauth_scopes)]
    if shut:
        return missing(
            NAME,
            expected,
            f"the nodes of pool {shut[0].name} have no scope to read images",
            f"gcloud container node-pools create {shut[0].name}-images --cluster {target.name} {target.gcloud} "
            f"--machine-type {shut[0].machine_type} --scopes=gke-default",
        )
    project, _, name = repository.path.partition("/")
    return untold(
        NAME,
        expected,
        "the nodes' scopes allow it; their account needs the role artifactregistry.reader, which this command grants",
        f"gcloud artifacts repositories add-iam-policy-binding {name} --project {project} "
        f"--location {repository.location} --role=roles/artifactregistry.reader "
        f"--member=serviceAccount:{_account(pools, target.project)}",
    )


def _may_read(scopes: Sequence[str]) -> bool:
    return any(scope.endswith(f"/auth/{known}") for scope in scopes for known in _SCOPES)


def _account(pools: Sequence[NodePool], project: str) -> str:
    named = next((pool.service_account for pool in pools if pool.service_account != "default"), "")
    number = f"$(gcloud projects describe {project} --format='value(projectNumber)')"
    return named or f"{number}-compute@developer.gserviceaccount.com"
