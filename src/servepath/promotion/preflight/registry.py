"""Whether the nodes can pull from the registry, as far as that can be told without starting a pod.

Kubernetes has no way to ask a node whether it reaches an address. What is told here is what leaves a trace: a node that
has pulled from the same repository before, and on GKE the right of the nodes' own credentials. Where neither tells, the
answer is that it is not known; `probe` then lets a pod try, which only a promotion that acts does.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from servepath.promotion.preflight.capacity import may_run
from servepath.promotion.preflight.pools import Pools, suits
from servepath.promotion.preflight.results import missing, there, untold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from servepath.evidence import CheckResult
    from servepath.gke.model import ArtifactRepository, GkeFacts, NodePool
    from servepath.promotion.preflight.needs import Needs

NAME = "registry_for_the_nodes"
_SCOPES = ("cloud-platform", "devstorage.read_only", "devstorage.read_write", "devstorage.full_control")


def check_registry(
    image: str,
    needs: Needs,
    nodes: Iterable[Mapping[str, Any]],
    facts: GkeFacts | None = None,
    repository: ArtifactRepository | None = None,
) -> CheckResult:
    """Look for a trace of the repository on the nodes that the pods may be scheduled to.

    What another node has pulled proves nothing: its pool may have other credentials and another network.
    Another image of the same host proves nothing: a host has repositories of many owners, and of each it is decided
    anew who may read it. Artifact Registry decides that for all images of one of its repositories together.

    Args:
        image: `host[:port]/repository`, without digest.
        needs: the pods that will pull it.
        nodes: the cluster's nodes.
        facts: what Google says of the cluster.
        repository: a repository of Artifact Registry; it counts if the image will be in it.
    """
    within = f"{repository.registry}/{repository.path}" if repository is not None else ""
    if not image.startswith(f"{within}/"):
        repository = None
    expected = f"nodes that pull from {image if repository is None else within}"
    known = (f"{image}@", f"{image}:") if repository is None else f"{within}/"
    pulled = [node for node in nodes if _has_pulled(node, known)]
    proofs = [next((node for node in pulled if may_run(node, pod)), None) for pod in needs.pods]
    named = sorted({node["metadata"]["name"] for node in proofs if node is not None})
    if named and None not in proofs:
        return there(NAME, expected, f"{'node' if len(named) == 1 else 'nodes'} {', '.join(named)} pulled from it")
    if facts is not None and repository is not None:
        return _by_rights(needs, facts, repository, expected)
    seen = "no node that the pods may run on has an image of it: only a pod will show whether it is reached"
    return untold(NAME, expected, seen)


def _has_pulled(node: Mapping[str, Any], known: str | tuple[str, ...]) -> bool:
    images = (node.get("status") or {}).get("images") or ()
    return any(name.startswith(known) for one in images for name in one.get("names") or ())


def _by_rights(needs: Needs, facts: GkeFacts, repository: ArtifactRepository, expected: str) -> CheckResult:
    """Judge the scopes of the nodes: what a role of the project grants, its administrator alone can read."""
    target = facts.target
    pools = [pool for pool in facts.pools if any(suits(pool, pod) for pod in needs.pods)]
    shut = [pool for pool in pools if pool.oauth_scopes and not _may_read(pool.oauth_scopes)]
    if shut:
        return missing(
            NAME,
            expected,
            f"the nodes of pool {shut[0].name} have no scope to read images",
            Pools(facts, Counter()).make(needs.pods[0], "--scopes=gke-default"),
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
