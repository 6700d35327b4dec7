"""A live canary with the real KServe, kubelet and gateway: good ones are promoted, bad ones rolled back.

One stable slot serves all tests of this file; each canary begins from what the one before left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from servepath.bench.model import BenchPlan
from servepath.canary.held import read_route
from servepath.canary.model import CanaryPlan, ClientPlan, Decision, Outcome
from servepath.canary.route import read_state, read_weights
from servepath.canary.run import run_canary
from servepath.canary.stable import find_stable
from servepath.cluster.client import kubernetes
from servepath.cluster.objects import read
from servepath.serving.deploy import delete, deploy_kserve
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.slots import Slot, slot_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servepath.canary.model import CanaryResult
    from servepath.cluster.model import Cluster
    from tests.cluster.pods.conftest import Standin

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

NAMESPACE = "canary"
# Slow enough that the machine's noise is small against it.
SPEED = ("--standin-ttft-ms=60", "--standin-itl-ms=15")
PLAN = CanaryPlan(
    steps_percent=(10, 50, 100),
    hold_s=3.0,
    max_extensions=4,
    max_slowdown_percent=60.0,
    bench=BenchPlan(
        requests_per_block=1, prompt_tokens=16, output_tokens=8, warmup_requests=1, bootstrap_resamples=2000
    ),
    client=ClientPlan(rate_per_s=5.0, output_tokens=20, timeout_s=20.0),
    lease_s=3.0,
)


@pytest.fixture(scope="module")
def stable(serving_cluster: Cluster, standin: Standin) -> Iterator[ServingSpec]:
    """What `servepath deploy --path kserve` left, serving the first model."""
    profile = replace(standin.profile, engine_args=SPEED)
    spec = ServingSpec(NAMESPACE, "tiny", "tiny", standin.modelcars[0], standin.engine, profile)
    anyio.run(deploy_kserve, serving_cluster, spec, "key-of-the-canary")
    yield spec
    for slot in Slot:
        anyio.run(delete, serving_cluster, NAMESPACE, slot_name("tiny", slot), (ServingPath.KSERVE,))


async def next_spec(cluster: Cluster, standin: Standin, stable: ServingSpec, *engine_args: str) -> ServingSpec:
    """The model that is not the stable one now."""
    async with kubernetes(cluster) as client:
        now = await find_stable(client, cluster, NAMESPACE, "tiny", stable.profile)
    (model,) = set(standin.modelcars) - {now.spec.modelcar_reference}
    profile = replace(stable.profile, engine_args=(*SPEED, *engine_args))
    return replace(stable, modelcar_reference=model, profile=profile)


async def serves(cluster: Cluster, stable: ServingSpec) -> tuple[str, dict[Slot, int], Slot | None]:
    """The model, the weights and the slot that is not there (or stopped)."""
    async with kubernetes(cluster) as client:
        now = await find_stable(client, cluster, NAMESPACE, "tiny", stable.profile)
        route = await read_route(client, NAMESPACE, "tiny")
        assert route is not None
        state = read_state(route)
        assert state.canary is None
        name = f"{slot_name('tiny', state.stable.other)}-kserve-predictor"
        other = await read(client, "Deployment", name, NAMESPACE)
    return now.spec.modelcar_reference, read_weights(route), None if other else state.stable.other


def lost(result: CanaryResult) -> list[tuple[float, str]]:
    return [(request.sent_s, request.error) for request in result.requests if request.error]


async def test_a_good_canary_is_promoted_and_no_client_loses_a_request(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec
) -> None:
    spec = await next_spec(serving_cluster, standin, stable)
    said: list[str] = []
    result = await run_canary(serving_cluster, spec, PLAN, progress=said.append)
    assert (result.outcome, result.cause) == (Outcome.PROMOTED, ""), said
    assert lost(result) == []
    assert len(result.requests) > 50
    assert [step.weight_percent for step in result.steps] == [10, 50, 100]
    assert {step.decision for step in result.steps} == {Decision.PROMOTE}
    assert [change.canary_percent for change in result.weights] == [10, 50, 100]
    assert {request.slot for request in result.requests} == set(Slot)
    model, weights, gone = await serves(serving_cluster, stable)
    assert model == spec.modelcar_reference
    assert weights == {result.canary_slot: 100}
    assert gone is result.canary_slot.other
