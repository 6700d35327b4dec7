"""An update of one path under a constant load: how many requests fail until the new pod alone serves."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
from lightkube.resources.core_v1 import Pod
from lightkube.types import PatchType

from servepath.cluster.client import errors_of, kubernetes
from servepath.cluster.objects import KINDS, Json, place
from servepath.cluster.wait import until, until_gone
from servepath.errors import ClusterError
from servepath.lifecycle.load import ConstantLoad, downtime_s
from servepath.lifecycle.model import Rollout
from servepath.serving.find import expectation_of
from servepath.serving.model import ServingPath
from servepath.serving.readiness import await_ready
from servepath.serving.stopped import ENGINE_KIND, deployment_name, pod_labels
from servepath.serving.switch import our_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.serving.model import Endpoint, ServingSpec

RECREATE = "Recreate"
ROLLING_UPDATE = "RollingUpdate"
STAMP = "servepath.dev/rollout"

_STRATEGIES: dict[str, Json] = {
    RECREATE: {"type": RECREATE, "rollingUpdate": None},
    ROLLING_UPDATE: {"type": ROLLING_UPDATE, "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
}
_TIMEOUT_S = 120.0
_PATIENCE_S = 30
_DIGITS = 9


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The load of a rollout.

    Attributes:
        rate_per_s: requests per second, each for one token.
        timeout_s: after how many seconds a request without an answer counts as failed.
        lead_s: seconds of load before the update; every request of it must be answered.
        tail_s: seconds of load after the old pods are gone.
    """

    rate_per_s: float = 2.0
    timeout_s: float = 10.0
    lead_s: float = 3.0
    tail_s: float = 3.0


async def roll_out(cluster: Cluster, spec: ServingSpec, endpoint: Endpoint, strategy: str, plan: LoadPlan) -> Rollout:
    """Update a path that serves, under load: a new annotation of its pods, nothing else. The strategy is put back.

    Args:
        cluster: where.
        spec: what is deployed; its profile's budgets of time are used.
        endpoint: the path, and where its load goes.
        strategy: `Recreate` or `RollingUpdate`.
        plan: the load.

    Raises:
        ClusterError: requests fail before the update, or the new pod does not come up, with the real cause (such as
            `Unschedulable` where a node has no room for two engines).
    """
    path = ServingPath(endpoint.path)
    load = ConstantLoad(endpoint, plan.rate_per_s, plan.timeout_s)
    async with kubernetes(cluster) as client, _strategy(client, spec, path, strategy) as engine:
        old = await _pods_of(client, engine, path)
        async with anyio.create_task_group() as group:
            group.start_soon(load.run)
            await anyio.sleep(plan.lead_s)
            _refuse_a_bad_start(load, endpoint)
            began_s = anyio.current_time()
            try:
                await _update(client, cluster, spec, engine, endpoint)
                duration_s = anyio.current_time() - began_s
                for pod in old:
                    await until_gone(client, "Pod", spec.namespace, pod, timeout_s=_TIMEOUT_S)
                await anyio.sleep(plan.tail_s)
            finally:
                load.end()
    samples = tuple(
        sorted((round(sent_s - began_s, _DIGITS), answered) for sent_s, answered in load.samples if sent_s >= began_s)
    )
    return Rollout(
        path=str(path),
        strategy=strategy,
        request_count=len(samples),
        failed_count=sum(not answered for _, answered in samples),
        downtime_s=downtime_s(samples),
        duration_s=duration_s,
        samples=samples,
        errors=tuple(load.errors.most_common()),
    )


async def deployed_strategy(client: AsyncClient, engine: Json, path: ServingPath) -> str:
    """Give the strategy of a path's Deployment, as it runs."""
    metadata = engine["metadata"]
    deployment = await until(
        client,
        "Deployment",
        metadata["namespace"],
        deployment_name(engine, path),
        lambda found: found,
        timeout_s=_TIMEOUT_S,
        expected="deployed",
    )
    return str((deployment["spec"].get("strategy") or {}).get("type") or ROLLING_UPDATE)


@asynccontextmanager
async def _strategy(client: AsyncClient, spec: ServingSpec, path: ServingPath, strategy: str) -> AsyncIterator[Json]:
    """Give the path's engine under a strategy, and put the old strategy back."""
    engine = await our_engine(client, spec.namespace, spec.name, path)
    before = await deployed_strategy(client, engine, path)
    await _set_strategy(client, engine, path, strategy)
    try:
        yield engine
    finally:
        with anyio.CancelScope(shield=True):
            await _set_strategy(client, engine, path, before)


async def _set_strategy(client: AsyncClient, engine: Json, path: ServingPath, strategy: str) -> None:
    field = "strategy" if path is ServingPath.RAW else "deploymentStrategy"
    await _patch(client, engine, path, _within_spec(path, {field: _STRATEGIES[strategy]}))

    def has_it(deployment: Json | None) -> bool | None:
        return True if deployment is not None and deployment["spec"]["strategy"]["type"] == strategy else None

    await until(
        client,
        "Deployment",
        engine["metadata"]["namespace"],
        deployment_name(engine, path),
        has_it,
        timeout_s=_TIMEOUT_S,
        expected=f"the strategy {strategy}",
    )


async def _update(client: AsyncClient, cluster: Cluster, spec: ServingSpec, engine: Json, endpoint: Endpoint) -> None:
    """Give the pods a new annotation and await that a pod with it alone serves."""
    path = ServingPath(endpoint.path)
    annotations = {STAMP: uuid4().hex}
    template = {"annotations": annotations}
    patch = {"template": {"metadata": template}} if path is ServingPath.RAW else template
    expected = replace(
        await expectation_of(client, engine, path, spec.profile), annotations=annotations, patience_s=_PATIENCE_S
    )
    await _patch(client, engine, path, _within_spec(path, patch))
    await await_ready(client, cluster, expected, endpoint.api_key)


def _within_spec(path: ServingPath, fields: Json) -> Json:
    return {"spec": fields} if path is ServingPath.RAW else {"spec": {"predictor": fields}}


async def _patch(client: AsyncClient, engine: Json, path: ServingPath, patch: Json) -> None:
    metadata = engine["metadata"]
    resource: Any = KINDS[ENGINE_KIND[path]]
    with errors_of(place(engine)):
        await client.patch(
            resource, metadata["name"], patch, namespace=metadata["namespace"], patch_type=PatchType.MERGE
        )


async def _pods_of(client: AsyncClient, engine: Json, path: ServingPath) -> tuple[str, ...]:
    namespace = engine["metadata"]["namespace"]
    with errors_of(f"pods in {namespace}"):
        listed = client.list(Pod, namespace=namespace, labels=dict(pod_labels(engine, path)))
        return tuple([str(pod.metadata.name) async for pod in listed if pod.metadata])


def _refuse_a_bad_start(load: ConstantLoad, endpoint: Endpoint) -> None:
    failed = sum(not answered for _, answered in load.samples)
    if failed or not load.samples:
        raise ClusterError(
            f"{failed} of {len(load.samples)} requests failed before the update, or none was answered in time",
            where=f"{endpoint.path} path",
            expected="a path that answers every request of the load, so that a failure is the update's",
            next_command=f"kubectl -n {endpoint.namespace} logs deployment/{endpoint.workload} --tail=50",
        )
