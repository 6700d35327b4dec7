"""The checks that read Kubernetes, on objects that a real API server and KServe's real webhook made.

The pods are kept from every node, so their status is what the test writes: the checks are shown to pass and to fail.
"""

from __future__ import annotations

import uuid
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import anyio
import httpx
import pytest
from lightkube.codecs import from_dict
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace, Pod
from lightkube.types import PatchType

from servepath.checks.canary_checks import canary_percent_is_refused
from servepath.checks.cluster_checks import api_server_answers, crds_are_served
from servepath.checks.context import CheckContext, Finding, Tools
from servepath.checks.isolation_checks import engine_is_offline, raw_pod_is_hardened
from servepath.checks.kubernetes import read_pod
from servepath.checks.modelcar_checks import (
    modelcar_link_leads_to_the_model,
    pod_runs_the_modelcar_built,
    webhook_made_the_modelcar_form,
)
from servepath.checks.parity_checks import same_engine_on_both_paths, same_modelcar_on_both_paths
from servepath.checks.route_checks import route_timeout_is_as_asked
from servepath.checks.run import PlannedCheck, run_one
from servepath.cluster.client import kubernetes
from servepath.cluster.objects import HTTPRoute, InferenceService
from servepath.cluster.wait import changes
from servepath.evidence import Verdict
from servepath.serving.model import Endpoint, Profile, ServingPath, ServingSpec
from servepath.serving.render import host_of, object_name, render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lightkube.generic_resource import GenericNamespacedResource
    from lightkube.resources.apps_v1 import Deployment

    from servepath.cluster.model import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

MODELCAR_DIGEST = "sha256:" + "a" * 64
ENGINE = "127.0.0.1:5000/servepath/engine@sha256:" + "e" * 64
MODELCAR = f"127.0.0.1:5000/servepath/model@{MODELCAR_DIGEST}"
OTHER = "127.0.0.1:5000/servepath/other@sha256:" + "0" * 64
PROFILE = Profile("cpu", "100m", "1", "128Mi", "256Mi", 1, 1024, 60, 123)
NOWHERE = {"servepath.test/no-such-node": "true"}
POD_TIMEOUT_S = 60


@pytest.fixture
async def tools(cluster: Cluster) -> AsyncIterator[Tools]:
    namespace = f"checks-{uuid.uuid4().hex[:8]}"
    spec = ServingSpec(namespace, "qwen", "a-model", MODELCAR, ENGINE, PROFILE)
    context = CheckContext(cluster, spec, MODELCAR_DIGEST)
    async with kubernetes(cluster) as kube, httpx.AsyncClient(trust_env=False) as http:
        await kube.create(Namespace(metadata=ObjectMeta(name=namespace)))
        try:
            yield Tools(context, kube, http)
        finally:
            with anyio.CancelScope(shield=True):
                await kube.delete(Namespace, namespace)


async def deploy(
    tools: Tools, path: ServingPath, change: Callable[[dict[str, Any]], None] = lambda _: None
) -> Endpoint:
    """Apply a path's own manifests, changed; wait for the pod that the controllers make of them."""
    spec = tools.context.spec
    for document in await render(spec, path):
        if document["kind"] == "Namespace":
            continue
        pod_spec = pod_spec_of(document)
        if pod_spec is not None:
            pod_spec["nodeSelector"] = NOWHERE
            change(pod_spec)
        await tools.kube.create(cast("GenericNamespacedResource", from_dict(document)))
    name = object_name(spec, path)
    workload = name if path is ServingPath.RAW else f"{name}-predictor"
    with anyio.fail_after(POD_TIMEOUT_S):
        async with aclosing(changes(tools.kube, "Pod", spec.namespace)) as events:
            async for _, pod in events:
                if pod["metadata"]["name"].startswith(f"{workload}-"):
                    break
    return Endpoint(path, "", host_of(spec, path), "a-model", spec.namespace, workload, MODELCAR_DIGEST, ENGINE, 0.0)


def pod_spec_of(document: dict[str, Any]) -> dict[str, Any] | None:
    if document["kind"] == "Deployment":
        found: dict[str, Any] = document["spec"]["template"]["spec"]
        return found
    if document["kind"] == "InferenceService":
        predictor: dict[str, Any] = document["spec"]["predictor"]
        return predictor
    return None


async def report_images(tools: Tools, endpoint: Endpoint, **running: str) -> None:
    """Write the pod's status as a kubelet would: each container runs what its spec names, or what is given here."""
    pod = await read_pod(tools, endpoint)

    def statuses(kind: str) -> list[dict[str, Any]]:
        return [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": running.get(one["name"].replace("-", "_"), one["image"]),
                "ready": True,
                "restartCount": 0,
            }
            for one in pod["spec"].get(kind) or []
        ]

    status = {"initContainerStatuses": statuses("initContainers"), "containerStatuses": statuses("containers")}
    await tools.kube.patch(
        Pod.Status,
        pod["metadata"]["name"],
        {"status": status},
        namespace=endpoint.namespace,
        patch_type=PatchType.MERGE,
    )


async def judged(check: Callable[..., Awaitable[Finding]], *arguments: Any) -> tuple[Verdict, str]:
    """Run a check as `smoke` does."""
    tools: Tools = arguments[0]
    planned = PlannedCheck(check.__name__, "cluster", "it passes", lambda: check(*arguments), "kubectl get pods")
    result = await run_one(planned, tools.context)
    return result.verdict, result.seen


async def test_the_cluster_serves_what_the_paths_need(tools: Tools) -> None:
    assert (await judged(api_server_answers, tools))[0] is Verdict.PASS
    verdict, seen = await judged(crds_are_served, tools)
    assert (verdict, "inferenceservices.serving.kserve.io v1beta1" in seen) == (Verdict.PASS, True)


async def test_a_namespace_that_is_not_there_fails(tools: Tools) -> None:
    spec = replace(tools.context.spec, namespace="no-such-namespace")
    elsewhere = replace(tools, context=replace(tools.context, spec=spec))
    verdict, seen = await judged(api_server_answers, elsewhere)
    assert verdict is Verdict.FAIL
    assert seen.startswith("the API server says 404")


async def test_the_webhook_makes_the_modelcar_form(tools: Tools) -> None:
    endpoint = await deploy(tools, ServingPath.KSERVE)
    assert (await judged(webhook_made_the_modelcar_form, tools, endpoint))[0] is Verdict.PASS
    assert (await judged(engine_is_offline, tools, endpoint))[0] is Verdict.PASS


async def test_without_a_storage_uri_the_webhook_makes_no_modelcar(tools: Tools) -> None:
    def forget(predictor: dict[str, Any]) -> None:
        server = predictor["containers"][0]
        server["env"] = [one for one in server["env"] if one["name"] not in {"STORAGE_URI", "HF_HUB_OFFLINE"}]

    endpoint = await deploy(tools, ServingPath.KSERVE, forget)
    verdict, seen = await judged(webhook_made_the_modelcar_form, tools, endpoint)
    assert verdict is Verdict.FAIL
    assert "no init container modelcar-init; no sidecar modelcar" in seen
    verdict, seen = await judged(engine_is_offline, tools, endpoint)
    assert (verdict, seen) == (Verdict.FAIL, "HF_HUB_OFFLINE is not set")
    verdict, seen = await judged(pod_runs_the_modelcar_built, tools, endpoint)
    assert (verdict, "no container or image volume names it" in seen) == (Verdict.FAIL, True)


async def test_the_modelcar_that_runs_is_read_from_the_status(tools: Tools) -> None:
    endpoint = await deploy(tools, ServingPath.KSERVE)
    verdict, seen = await judged(pod_runs_the_modelcar_built, tools, endpoint)
    assert (verdict, "container modelcar runs nothing yet" in seen) == (Verdict.FAIL, True)
    await report_images(tools, endpoint, modelcar=OTHER)
    verdict, seen = await judged(pod_runs_the_modelcar_built, tools, endpoint)
    assert (verdict, seen) == (Verdict.FAIL, f"container modelcar runs {OTHER}")
    await report_images(tools, endpoint)
    assert (await judged(pod_runs_the_modelcar_built, tools, endpoint))[0] is Verdict.PASS


async def test_a_pod_on_no_node_has_no_link(tools: Tools) -> None:
    endpoint = await deploy(tools, ServingPath.KSERVE)
    verdict, seen = await judged(modelcar_link_leads_to_the_model, tools, endpoint)
    assert (verdict, seen) == (Verdict.FAIL, "exec in modelcar was refused with 400")


async def test_the_raw_pod_is_hardened_and_routed_as_asked(tools: Tools) -> None:
    endpoint = await deploy(tools, ServingPath.RAW)
    assert await judged(raw_pod_is_hardened, tools, endpoint) == (
        Verdict.PASS,
        f"all of it holds in pod {(await read_pod(tools, endpoint))['metadata']['name']}",
    )
    assert (await judged(engine_is_offline, tools, endpoint))[0] is Verdict.PASS
    assert await judged(route_timeout_is_as_asked, tools, endpoint) == (Verdict.PASS, "123 s")
    await report_images(tools, endpoint)
    assert (await judged(pod_runs_the_modelcar_built, tools, endpoint))[0] is Verdict.PASS


async def test_a_raw_pod_that_may_more_fails(tools: Tools) -> None:
    def loosen(pod_spec: dict[str, Any]) -> None:
        pod_spec["automountServiceAccountToken"] = True
        pod_spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False

    endpoint = await deploy(tools, ServingPath.RAW, loosen)
    verdict, seen = await judged(raw_pod_is_hardened, tools, endpoint)
    assert verdict is Verdict.FAIL
    assert "vllm lacks readOnlyRootFilesystem" in seen
    assert "automountServiceAccountToken is not false" in seen


async def test_another_timeout_of_the_route_fails(tools: Tools) -> None:
    endpoint = await deploy(tools, ServingPath.RAW)
    name = object_name(tools.context.spec, ServingPath.RAW)
    route = dict(await tools.kube.get(HTTPRoute, name, namespace=endpoint.namespace))
    route["spec"]["rules"][0]["timeouts"]["request"] = "60s"
    await tools.kube.replace(HTTPRoute(**route))
    verdict, seen = await judged(route_timeout_is_as_asked, tools, endpoint)
    assert (verdict, seen) == (Verdict.FAIL, f"HTTPRoute {name} rule 0: timeouts.request is 60s")
    verdict, seen = await judged(route_timeout_is_as_asked, tools, replace(endpoint, host="other.test"))
    assert (verdict, "no HTTPRoute names the host other.test" in seen) == (Verdict.FAIL, True)


async def test_both_paths_are_compared_by_what_runs(tools: Tools) -> None:
    raw, kserve = await deploy(tools, ServingPath.RAW), await deploy(tools, ServingPath.KSERVE)
    for endpoint in (raw, kserve):
        await report_images(tools, endpoint)
    assert (await judged(same_modelcar_on_both_paths, tools, raw, kserve))[0] is Verdict.PASS
    assert await judged(same_engine_on_both_paths, tools, raw, kserve) == (Verdict.PASS, ENGINE)
    await report_images(tools, kserve, kserve_container=OTHER, modelcar_init=OTHER)
    verdict, seen = await judged(same_engine_on_both_paths, tools, raw, kserve)
    assert (verdict, f"kserve: runs {OTHER}" in seen) == (Verdict.FAIL, True)
    verdict, seen = await judged(same_modelcar_on_both_paths, tools, raw, kserve)
    assert (verdict, seen) == (Verdict.FAIL, f"kserve: container modelcar-init runs {OTHER}")


async def test_kserve_takes_a_canary_that_has_no_effect_and_the_check_says_so(tools: Tools) -> None:
    endpoint = await deploy(tools, ServingPath.KSERVE)
    assert (await judged(canary_percent_is_refused, tools, endpoint))[0] is Verdict.PASS
    name = object_name(tools.context.spec, ServingPath.KSERVE)
    canary = {"spec": {"predictor": {"canaryTrafficPercent": 10}}}
    await tools.kube.patch(InferenceService, name, canary, namespace=endpoint.namespace, patch_type=PatchType.MERGE)
    verdict, seen = await judged(canary_percent_is_refused, tools, endpoint)
    assert (verdict, seen) == (Verdict.FAIL, f"{name} has canaryTrafficPercent 10, which has no effect")


async def test_a_workload_without_pods_fails(tools: Tools) -> None:
    spec = tools.context.spec
    deployment = next(one for one in await render(spec, ServingPath.RAW) if one["kind"] == "Deployment")
    deployment["spec"]["replicas"] = 0
    await tools.kube.create(cast("Deployment", from_dict(deployment)))
    name = object_name(spec, ServingPath.RAW)
    endpoint = Endpoint(ServingPath.RAW, "", "", "a-model", spec.namespace, name, MODELCAR_DIGEST, ENGINE, 0.0)
    verdict, seen = await judged(raw_pod_is_hardened, tools, endpoint)
    assert (verdict, "the Deployment has no pod" in seen) == (Verdict.FAIL, True)
    verdict, seen = await judged(raw_pod_is_hardened, tools, replace(endpoint, workload="no-such-workload"))
    assert (verdict, "the API server says 404" in seen) == (Verdict.FAIL, True)
