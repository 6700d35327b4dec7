"""A live canary with the real KServe, kubelet and gateway: good ones are promoted, bad ones rolled back.

One stable slot serves all tests of this file; each canary begins from what the one before left.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from servepath.bench.model import BenchPlan
from servepath.bench.slo import Slo
from servepath.canary.held import read_route
from servepath.canary.model import CanaryPlan, ClientPlan, Decision, Outcome
from servepath.canary.route import read_state, read_weights
from servepath.canary.run import roll_back, run_canary
from servepath.canary.stable import find_stable
from servepath.cluster.client import kubernetes
from servepath.cluster.model import LeaseTimes
from servepath.cluster.objects import read
from servepath.errors import CheckFailedError, PromotionRefusedError
from servepath.serving.deploy import delete, deploy_kserve
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.slots import Slot, slot_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servepath.canary.model import CanaryResult
    from servepath.cluster.model import Cluster
    from servepath.serving.model import Endpoint
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
    lease=LeaseTimes(duration_s=6, renew_s=1.5, wait_s=12.0),
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
    # Before the route was there, KServe's own led, and it names no slot.
    assert {request.slot for request in result.requests} == {None, *Slot}
    model, weights, gone = await serves(serving_cluster, stable)
    assert model == spec.modelcar_reference
    assert weights == {result.canary_slot: 100}
    assert gone is result.canary_slot.other


async def rolled_back(
    cluster: Cluster, standin: Standin, stable: ServingSpec, plan: CanaryPlan, *engine_args: str
) -> CanaryResult:
    """A canary with these arguments is rolled back, and everything is as it was."""
    before = await serves(cluster, stable)
    spec = await next_spec(cluster, standin, stable, *engine_args)
    result = await run_canary(cluster, spec, plan)
    assert result.outcome is Outcome.ROLLED_BACK
    assert await serves(cluster, stable) == before
    async with kubernetes(cluster) as client:
        name = f"{slot_name('tiny', result.canary_slot)}-kserve"
        assert await read(client, "InferenceService", name, NAMESPACE) is None
    return result


async def test_a_slow_engine_is_rolled_back_and_no_client_loses_a_request(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec
) -> None:
    slow = ("--standin-ttft-ms=300", "--standin-itl-ms=80")
    result = await rolled_back(serving_cluster, standin, stable, PLAN, *slow)
    assert "slower" in result.cause
    assert lost(result) == []
    assert [change.canary_percent for change in result.weights] == [10, 0]
    after = {request.slot for request in result.requests if request.sent_s > result.weights[-1].taken_s}
    assert after == {result.canary_slot.other}


async def test_errors_of_the_canary_roll_it_back_at_its_first_step(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec
) -> None:
    plan = replace(PLAN, steps_percent=(5, 100))
    result = await rolled_back(serving_cluster, standin, stable, plan, "--standin-error-percent=20")
    assert "HTTP 500" in result.cause
    assert [change.canary_percent for change in result.weights] == [5, 0]
    assert [(step.number, step.decision) for step in result.steps] == [(0, Decision.ROLL_BACK)]
    # Of the few clients that met it, some met its error; none of the stable slot's did.
    assert {request.slot for request in result.requests if request.error} <= {result.canary_slot}


async def test_an_objective_that_the_canary_misses_rolls_it_back(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec
) -> None:
    plan = replace(PLAN, slo=Slo(ttft_p95_s=0.001, itl_p95_s=None, e2e_p95_s=None))
    result = await rolled_back(serving_cluster, standin, stable, plan)
    assert "objective ttft_p95_s" in result.cause
    assert lost(result) == []


@pytest.mark.parametrize(
    ("engine_arg", "cause"),
    [
        pytest.param("--served-model-name=another", "it serves another and not tiny", id="wrong model"),
        pytest.param("--standin-error-percent=100", "its first completion is HTTP 500", id="no completion"),
        pytest.param("--standin-crash-after-ms=1", "crashed, as asked", id="crash loop"),
    ],
)
async def test_what_does_not_serve_never_meets_a_client(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec, engine_arg: str, cause: str
) -> None:
    result = await rolled_back(serving_cluster, standin, stable, PLAN, engine_arg)
    assert cause in result.cause
    assert (result.weights, result.steps, lost(result)) == ((), (), [])
    assert {request.slot for request in result.requests} == {result.canary_slot.other}


async def test_a_digest_that_cannot_be_pulled_never_meets_a_client(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec
) -> None:
    before = await serves(serving_cluster, stable)
    missing = f"{standin.modelcars[0].partition('@')[0]}@sha256:{'0' * 64}"
    result = await run_canary(serving_cluster, replace(stable, modelcar_reference=missing), PLAN)
    assert result.outcome is Outcome.ROLLED_BACK
    assert "ImagePull" in result.cause
    assert (result.weights, lost(result)) == ((), [])
    assert await serves(serving_cluster, stable) == before


async def test_a_canary_that_dies_on_its_way_is_rolled_back(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec
) -> None:
    plan = replace(PLAN, hold_s=60.0)
    result = await rolled_back(serving_cluster, standin, stable, plan, "--standin-crash-after-ms=20000")
    assert [change.canary_percent for change in result.weights][:1] == [10]
    assert {request.slot for request in result.requests if request.error} <= {result.canary_slot, None}


async def test_a_gate_that_refuses_keeps_it_from_every_client(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec
) -> None:
    asked: list[tuple[str, Slot | None]] = []

    async def gate(endpoint: Endpoint) -> None:
        asked.append((endpoint.modelcar_digest, endpoint.slot))
        raise CheckFailedError("it answers nonsense")

    before = await serves(serving_cluster, stable)
    spec = await next_spec(serving_cluster, standin, stable)
    result = await run_canary(serving_cluster, spec, PLAN, gate=gate)
    assert (result.outcome, result.weights) == (Outcome.ROLLED_BACK, ())
    assert "nonsense" in result.cause
    assert asked == [(spec.modelcar_reference.partition("@")[2], result.canary_slot)]
    assert await serves(serving_cluster, stable) == before


async def test_a_second_canary_is_refused_while_the_first_goes_on(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec
) -> None:
    spec = await next_spec(serving_cluster, standin, stable)
    results: list[CanaryResult] = []
    stepping = anyio.Event()

    async def first() -> None:
        results.append(await run_canary(serving_cluster, spec, PLAN, progress=at_the_first_step(stepping)))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await stepping.wait()
        with pytest.raises(PromotionRefusedError, match=r"another is under way: canary .* holds the Lease"):
            await run_canary(serving_cluster, spec, replace(PLAN, lease=replace(PLAN.lease, wait_s=2.0)))
    assert [(one.outcome, lost(one)) for one in results] == [(Outcome.PROMOTED, [])]


@pytest.mark.parametrize("moment", ["deploy ", "prove ", "step 1", "step 3", "promoted: put away"])
async def test_a_killed_controller_is_gone_on_with(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec, moment: str
) -> None:
    spec = await next_spec(serving_cluster, standin, stable)
    await killed(serving_cluster, spec, moment)
    result = await run_canary(serving_cluster, spec, PLAN)
    assert (result.outcome, result.resumed, lost(result)) == (Outcome.PROMOTED, True, [])
    model, weights, _ = await serves(serving_cluster, stable)
    assert (model, weights) == (spec.modelcar_reference, {result.canary_slot: 100})


async def test_a_killed_controller_is_rolled_back_when_another_model_is_asked_for(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec
) -> None:
    spec = await next_spec(serving_cluster, standin, stable)
    before = await serves(serving_cluster, stable)
    await killed(serving_cluster, spec, "step 2")
    missing = f"{standin.modelcars[0].partition('@')[0]}@sha256:{'0' * 64}"
    said: list[str] = []
    result = await run_canary(serving_cluster, replace(stable, modelcar_reference=missing), PLAN, progress=said.append)
    assert any("another model was asked for" in line for line in said)
    assert (result.outcome, result.resumed) == (Outcome.ROLLED_BACK, False)
    assert await serves(serving_cluster, stable) == before


async def test_an_abandoned_canary_is_rolled_back_on_request(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec
) -> None:
    spec = await next_spec(serving_cluster, standin, stable)
    before = await serves(serving_cluster, stable)
    await killed(serving_cluster, spec, "step 2")
    result = await roll_back(serving_cluster, NAMESPACE, "tiny", stable.profile)
    assert result is not None
    assert (result.outcome, result.cause) == (Outcome.ROLLED_BACK, "asked for")
    assert await serves(serving_cluster, stable) == before
    assert await roll_back(serving_cluster, NAMESPACE, "tiny", stable.profile) is None


async def test_an_interrupted_canary_rolls_back_before_it_ends(
    serving_cluster: Cluster, standin: Standin, stable: ServingSpec
) -> None:
    spec = await next_spec(serving_cluster, standin, stable)
    before = await serves(serving_cluster, stable)
    stepping = anyio.Event()

    async with anyio.create_task_group() as group:
        group.start_soon(partial(run_canary, serving_cluster, spec, PLAN, progress=at_the_first_step(stepping)))
        await stepping.wait()
        group.cancel_scope.cancel()
    assert await serves(serving_cluster, stable) == before


def at_the_first_step(event: anyio.Event) -> Callable[[str], None]:
    """Tell when the first step begins."""

    def progress(said: str) -> None:
        if said.startswith("step 1"):
            event.set()

    return progress


async def killed(cluster: Cluster, spec: ServingSpec, moment: str) -> None:
    """Run a canary in a process of its own, and kill that with SIGKILL at the moment of which it says so."""
    async with await anyio.open_process([sys.executable, "-m", "tests.cluster.pods.canary_process"]) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send(pickle.dumps((cluster, spec)))
        said = ""
        async for chunk in process.stdout:
            said += chunk.decode()
            if moment in said:
                break
        assert moment in said
        process.kill()
        await process.wait()
