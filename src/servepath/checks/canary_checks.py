"""The canary that KServe accepts and ignores."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from servepath.checks.context import Finding, Tools, finding
from servepath.checks.kubernetes import kubectl
from servepath.cluster.objects import InferenceService, Json
from servepath.errors import UsageError
from servepath.serving.refusals import refuse_unsupported

if TYPE_CHECKING:
    from servepath.serving.model import Endpoint

FIELD = "canaryTrafficPercent"
PERCENT = 10


async def canary_percent_is_refused(tools: Tools, endpoint: Endpoint) -> Finding:
    """No InferenceService has canaryTrafficPercent, and servepath refuses each of them with it, saying why.

    Why: in Standard mode KServe takes the field and rolls everything to the new version at once.
    Source: KServe v0.19.0, `knative/ksvc_reconciler.go:134-152`, the only reader of the field.
    """
    listed = tools.kube.list(InferenceService, namespace=endpoint.namespace)
    services = [dict(service) async for service in listed]
    return finding(
        judge_canary(services),
        f"refused for {', '.join(service['metadata']['name'] for service in services)}, with the reason",
        kubectl(tools.context.cluster, "-n", endpoint.namespace, "get", "inferenceservices", "-o", "yaml"),
    )


def judge_canary(services: list[Json]) -> list[str]:
    """Give the InferenceServices that have the field, or that servepath would let have it."""
    if not services:
        return ["there is no InferenceService"]
    problems = []
    for service in services:
        name = service["metadata"]["name"]
        if FIELD in service["spec"]["predictor"]:
            problems.append(f"{name} has {FIELD} {service['spec']['predictor'][FIELD]}, which has no effect")
        if FIELD not in _refusal(service):
            problems.append(f"servepath would apply {name} with {FIELD}")
    return problems


def _refusal(service: Json) -> str:
    changed = copy.deepcopy(service)
    changed["spec"]["predictor"][FIELD] = PERCENT
    try:
        refuse_unsupported([changed])
    except UsageError as error:
        return error.what
    return ""
