"""The cluster under both paths: its API server answers and serves the kinds that the paths are made of."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from lightkube import ApiError
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.core_v1 import Namespace

from servepath.checks.context import Finding, Tools, finding
from servepath.checks.kubernetes import kubectl

if TYPE_CHECKING:
    from servepath.cluster.objects import Json

REQUIRED_CRDS = {
    "inferenceservices.serving.kserve.io": "v1beta1",
    "servingruntimes.serving.kserve.io": "v1alpha1",
    "gatewayclasses.gateway.networking.k8s.io": "v1",
    "gateways.gateway.networking.k8s.io": "v1",
    "httproutes.gateway.networking.k8s.io": "v1",
}


async def api_server_answers(tools: Tools) -> Finding:
    """The API server answers, and the namespace of both paths is active.

    Why: every other check reads through it; a failure here explains all of theirs.
    """
    name = tools.context.spec.namespace
    namespace = (await tools.kube.get(Namespace, name)).to_dict()
    phase = namespace.get("status", {}).get("phase")
    problems = [] if phase == "Active" else [f"namespace {name} is {phase}"]
    return finding(
        problems, f"namespace {name} is {phase}", kubectl(tools.context.cluster, "get", "--raw", "/readyz?verbose")
    )


async def crds_are_served(tools: Tools) -> Finding:
    """KServe's and Gateway API's kinds are established and served in the versions that are used.

    Why: KServe's CRDs are larger than client-side apply allows, so a half-applied platform is common.
    Source: `install/v0.19.0/kserve.yaml` of KServe; Gateway API v1.5.1, standard channel.
    """
    found = [crd for name in REQUIRED_CRDS if (crd := await _read_crd(tools, name)) is not None]
    wanted = ", ".join(f"{name} {version}" for name, version in REQUIRED_CRDS.items())
    return finding(judge_crds(found), wanted, kubectl(tools.context.cluster, "get", "crds"), expected=wanted)


async def _read_crd(tools: Tools, name: str) -> Json | None:
    """Read one CRD, None when it is absent: all of KServe's together are more than ten megabytes."""
    try:
        return (await tools.kube.get(CustomResourceDefinition, name)).to_dict()
    except ApiError as error:
        if error.status.code == HTTPStatus.NOT_FOUND:
            return None
        raise


def judge_crds(crds: list[Json]) -> list[str]:
    """Give the required kinds that are absent, not established, or not served in their version."""
    by_name = {crd["metadata"]["name"]: crd for crd in crds}
    problems = []
    for name, version in REQUIRED_CRDS.items():
        crd = by_name.get(name)
        if crd is None:
            problems.append(f"{name} is absent")
            continue
        served = [one["name"] for one in crd["spec"]["versions"] if one.get("served")]
        conditions = {one["type"]: one["status"] for one in crd.get("status", {}).get("conditions") or []}
        if version not in served:
            problems.append(f"{name} serves {served} and not {version}")
        if conditions.get("Established") != "True":
            problems.append(f"{name} is not established")
    return problems
