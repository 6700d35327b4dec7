"""The canary as one call, from its first write to its last, and killed before any of them."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from servepath.bench.model import BenchPlan
from servepath.canary.held import HeldRoute
from servepath.canary.model import CanaryPlan, ClientPlan, Outcome
from servepath.canary.route import read_state
from servepath.canary.run import adopt, find_target, roll_back, run_canary
from servepath.canary.state import Canary, begun
from servepath.cluster.client import kubernetes
from servepath.cluster.lease import LeaseLostError, hold, lease_name
from servepath.cluster.model import LeaseTimes
from servepath.errors import CheckFailedError, ClusterError, PromotionRefusedError, UsageError
from servepath.serving.deploy import deploy_kserve
from servepath.serving.find import find
from servepath.serving.model import ServingPath
from servepath.serving.render import GatewayRef
from servepath.serving.slots import Slot
from tests.unit.canary.small_cluster import NAME, NAMESPACE, NEW, OLD, SPEC, SmallCluster, small_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from servepath.canary.lead import Gate
    from servepath.canary.model import CanaryResult
    from servepath.serving.model import Endpoint

pytestmark = pytest.mark.anyio

PLAN = CanaryPlan(
    steps_percent=(10, 100),
    hold_s=0.05,
    max_extensions=20,
    max_slowdown_percent=300.0,
    bench=BenchPlan(requests_per_block=1, prompt_tokens=8, output_tokens=6, warmup_requests=1, bootstrap_resamples=100),
    client=ClientPlan(rate_per_s=50.0, output_tokens=3, timeout_s=5.0),
    lease=LeaseTimes(duration_s=5, renew_s=0.2, wait_s=10.0, poll_s=0.02),
)
IMPATIENT = replace(PLAN, hold_s=1.0, lease=replace(PLAN.lease, wait_s=0.3))
CANARY = replace(SPEC, modelcar_reference=NEW)
PROFILE = SPEC.profile


@pytest.fixture
async def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SmallCluster]:
    monkeypatch.setattr("servepath.canary.held._RETRY_S", 0.01)
    async with small_cluster(tmp_path) as cluster:
        await deploy_kserve(cluster.cluster, SPEC, "key")
        yield cluster


def lease_held_by(small: SmallCluster, holder: str | None = None) -> str:
    """Whoever holds the Lease; or let somebody else hold it, whatever its holder does."""
    key = "leases", NAMESPACE, lease_name(NAME)
    if holder is not None:
        lease = small.world.objects[key]
        small.world.put("leases", NAMESPACE, lease | {"spec": lease["spec"] | {"holderIdentity": holder}})
    return str(small.world.objects[key]["spec"]["holderIdentity"])


def lost(result: CanaryResult) -> list[str]:
    return [request.error for request in result.requests if request.error]


async def test_a_good_canary_becomes_the_stable_slot(small: SmallCluster) -> None:
    said: list[str] = []
    result = await run_canary(small.cluster, CANARY, PLAN, progress=said.append)
    assert (result.outcome, result.cause, lost(result)) == (Outcome.PROMOTED, "", []), said
    assert [change.canary_percent for change in result.weights] == [10, 100]
    assert small.weights() == {Slot.GREEN: 100}
    assert small.runs() == {Slot.GREEN}
    spec, endpoint = await find(small.cluster, NAMESPACE, NAME, ServingPath.KSERVE, PROFILE)
    assert (spec.modelcar_reference, spec.name, endpoint.workload) == (NEW, NAME, "tiny-green-kserve-predictor")
    assert endpoint.host == f"tiny-kserve-{NAMESPACE}.servepath.test"


async def test_the_next_one_takes_the_slot_of_the_one_before(small: SmallCluster) -> None:
    await run_canary(small.cluster, CANARY, PLAN)
    with pytest.raises(UsageError, match="leads to the slot green"):
        await deploy_kserve(small.cluster, SPEC, "key")
    _, spec = await find_target(small.cluster, NAMESPACE, NAME, PROFILE, OLD.partition("@")[2])
    assert spec == replace(SPEC, domain=spec.domain)
    result = await run_canary(small.cluster, spec, PLAN)
    assert (result.outcome, lost(result), result.canary_slot) == (Outcome.PROMOTED, [], Slot.BLUE)
    assert (small.weights(), small.runs()) == ({Slot.BLUE: 100}, {Slot.BLUE})


async def test_one_that_answers_errors_is_rolled_back_and_its_slot_deleted(small: SmallCluster) -> None:
    async def then_fails(endpoint: Endpoint) -> None:
        assert (endpoint.slot, endpoint.modelcar_digest) == (Slot.GREEN, NEW.partition("@")[2])
        small.gateway.engines[Slot.GREEN].status = 500

    result = await run_canary(small.cluster, CANARY, PLAN, gate=then_fails)
    assert result.outcome is Outcome.ROLLED_BACK
    assert "HTTP 500" in result.cause
    assert [change.canary_percent for change in result.weights] == [10, 0]
    assert (small.weights(), small.runs()) == ({Slot.BLUE: 100}, {Slot.BLUE})
    assert ("inferenceservices", NAMESPACE, "tiny-green-kserve") not in small.world.objects


@pytest.mark.parametrize("fault", ["model", "status", "gate"])
async def test_what_is_not_proved_never_meets_a_client(small: SmallCluster, fault: str) -> None:
    async def gate(_: Endpoint) -> None:
        if fault == "gate":
            raise CheckFailedError("nonsense")

    engine = small.gateway.engines[Slot.GREEN]
    engine.model = "other" if fault == "model" else "tiny"
    engine.status = 404 if fault == "status" else 200
    result = await run_canary(small.cluster, CANARY, PLAN, gate=gate)
    assert (result.outcome, result.weights, lost(result)) == (Outcome.ROLLED_BACK, (), [])
    assert (small.weights(), small.runs()) == ({Slot.BLUE: 100}, {Slot.BLUE})


async def test_another_name_of_the_model_is_refused_before_anything_is_done(small: SmallCluster) -> None:
    with pytest.raises(UsageError, match="'other'"):
        await run_canary(small.cluster, replace(CANARY, served_model_name="other"), PLAN)
    assert small.route() is None


async def test_nothing_is_begun_where_the_stable_slot_does_not_answer(small: SmallCluster) -> None:
    small.gateway.engines[Slot.BLUE].status = 500
    with pytest.raises(ClusterError, match="its first completion is HTTP 500"):
        await run_canary(small.cluster, CANARY, PLAN)
    assert small.route() is None


async def test_what_scales_by_itself_is_not_followed_by_one_engine(small: SmallCluster) -> None:
    scaler = {
        "kind": "HorizontalPodAutoscaler",
        "apiVersion": "autoscaling/v2",
        "metadata": {"name": f"{NAME}-kserve-predictor"},
        "spec": {"maxReplicas": 6, "scaleTargetRef": {"kind": "Deployment", "name": f"{NAME}-kserve-predictor"}},
    }
    small.world.put("horizontalpodautoscalers", NAMESPACE, scaler)
    with pytest.raises(PromotionRefusedError, match="decides how many engines serve"):
        await run_canary(small.cluster, CANARY, PLAN)
    assert small.route() is None


async def test_the_route_is_put_in_place_once(small: SmallCluster) -> None:
    first = await adopt(small.cluster, NAMESPACE, NAME, PROFILE)
    writes = small.world.writes
    assert await adopt(small.cluster, NAMESPACE, NAME, PROFILE) == first
    assert small.world.writes == writes
    assert await roll_back(small.cluster, NAMESPACE, NAME, PROFILE) is None


async def killed(small: SmallCluster, write: int, gate: Gate | None = None) -> bool:
    """Run a canary whose controller is cut off before its so-many-th write; whether it came so far."""
    cut = threading.Event()
    made = 0

    def fault(method: str, path: str) -> int:
        nonlocal made
        made += method != "GET" and "/leases" not in path
        if made > write:
            cut.set()
        return 500 if cut.is_set() else 0

    async def end_when_cut() -> None:
        await anyio.to_thread.run_sync(cut.wait, abandon_on_cancel=True)
        group.cancel_scope.cancel()

    small.world.fault = fault
    async with anyio.create_task_group() as group:
        group.start_soon(end_when_cut)
        with suppress(ClusterError):
            await run_canary(small.cluster, CANARY, PLAN, gate=gate)
        group.cancel_scope.cancel()
    small.world.fault = None
    lease_held_by(small, "")  # as if it had run out: that is waited for in tests/unit/promotion/test_promotion_lease.py
    was_cut = cut.is_set()
    cut.set()  # the thread that waits for it would keep the interpreter from ending
    return was_cut


@pytest.mark.parametrize("write", [1, 2, 4, 7, 8, 9, 10, 11, 12, 13])
async def test_killed_before_any_write_the_next_call_promotes(small: SmallCluster, write: int) -> None:
    was_killed = await killed(small, write)
    at_the_kill = small.weights()
    assert at_the_kill in [
        {Slot.BLUE: 100},
        {Slot.BLUE: 90, Slot.GREEN: 10},
        {Slot.GREEN: 100},
    ]
    state = (await adopt(small.cluster, NAMESPACE, NAME, PROFILE)).state
    assert state is not None
    if state.canary is None and state.stable is Slot.GREEN:
        assert not was_killed
        return
    result = await run_canary(small.cluster, CANARY, PLAN)
    assert (result.outcome, result.resumed, lost(result)) == (Outcome.PROMOTED, state.canary is not None, [])
    assert (small.weights(), small.runs()) == ({Slot.GREEN: 100}, {Slot.GREEN})


@pytest.mark.parametrize("write", [8, 9, 10, 11])
async def test_killed_on_its_way_back_the_next_call_rolls_back(small: SmallCluster, write: int) -> None:
    async def then_fails(_: Endpoint) -> None:
        small.gateway.engines[Slot.GREEN].status = 500

    await killed(small, write, then_fails)
    small.gateway.engines[Slot.GREEN].status = 500
    result = await run_canary(small.cluster, CANARY, PLAN)
    assert result.outcome is Outcome.ROLLED_BACK
    assert (small.weights(), small.runs()) == ({Slot.BLUE: 100}, {Slot.BLUE})


async def test_asked_for_another_model_what_was_left_is_rolled_back_first(small: SmallCluster) -> None:
    assert await killed(small, 9)
    other = replace(SPEC, modelcar_reference=f"registry/tiny@sha256:{'c' * 64}")
    said: list[str] = []
    result = await run_canary(small.cluster, other, PLAN, progress=said.append)
    assert "roll back: another model was asked for before it came to its end" in said
    assert (result.outcome, result.resumed) == (Outcome.PROMOTED, False)
    spec, _ = await find(small.cluster, NAMESPACE, NAME, ServingPath.KSERVE, PROFILE)
    assert spec.modelcar_reference == other.modelcar_reference


def when(event: anyio.Event, words: str) -> Callable[[str], None]:
    """Set an event when a canary says that it does something."""

    def progress(said: str) -> None:
        if said.startswith(words):
            event.set()

    return progress


async def test_a_second_canary_and_a_promotion_are_refused_and_the_first_goes_on(small: SmallCluster) -> None:
    results: list[CanaryResult] = []
    stepping = anyio.Event()

    async def first() -> None:
        results.append(await run_canary(small.cluster, CANARY, IMPATIENT, progress=when(stepping, "step 1")))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await stepping.wait()
        with pytest.raises(PromotionRefusedError, match=r"another is under way: canary .* holds the Lease") as caught:
            await run_canary(small.cluster, CANARY, IMPATIENT)
        async with kubernetes(small.cluster) as client:
            with pytest.raises(PromotionRefusedError, match=r"canary .* holds the Lease"):
                async with hold(client, NAMESPACE, NAME, "promotion box/1", IMPATIENT.lease):
                    pytest.fail("two hold it")
    assert (caught.value.where, caught.value.next_command) == (
        f"Lease {NAMESPACE}/{NAME}-promotion",
        f"servepath canary --namespace {NAMESPACE} --name {NAME}",
    )
    assert [(one.outcome, lost(one)) for one in results] == [(Outcome.PROMOTED, [])]
    assert lease_held_by(small) == ""


async def test_a_canary_is_refused_while_a_promotion_copies_or_deploys(small: SmallCluster) -> None:
    async with kubernetes(small.cluster) as client, hold(client, NAMESPACE, NAME, "promotion box/1", PLAN.lease):
        with pytest.raises(PromotionRefusedError, match="promotion box/1 holds the Lease") as caught:
            await run_canary(small.cluster, CANARY, IMPATIENT)
    assert (caught.value.exit_code, caught.value.next_command.split()[1]) == (8, "history")
    assert small.route() is None
    assert small.runs() == {Slot.BLUE}


async def test_the_canary_of_a_promotion_has_its_lease_and_is_not_rolled_back_beside_it(
    small: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[CanaryResult] = []
    stepping = anyio.Event()
    monkeypatch.setattr("servepath.canary.run.CanaryPlan", lambda: IMPATIENT)

    async def promotion() -> None:
        async with (
            kubernetes(small.cluster) as client,
            hold(client, NAMESPACE, NAME, "promotion box/1", PLAN.lease) as holding,
        ):
            told = when(stepping, "step 1")
            results.append(await run_canary(small.cluster, CANARY, IMPATIENT, holding=holding, progress=told))
            assert lease_held_by(small) == "promotion box/1"

    async with anyio.create_task_group() as group:
        group.start_soon(promotion)
        await stepping.wait()
        with pytest.raises(PromotionRefusedError, match="promotion box/1 holds the Lease"):
            await roll_back(small.cluster, NAMESPACE, NAME, PROFILE)
    assert [one.outcome for one in results] == [Outcome.PROMOTED]


async def test_who_loses_the_lease_changes_nothing_more_and_the_next_call_goes_on(small: SmallCluster) -> None:
    stepping = anyio.Event()

    async def first() -> None:
        with pytest.raises(LeaseLostError, match="now held by promotion box/1"):
            await run_canary(small.cluster, CANARY, replace(PLAN, hold_s=30.0), progress=when(stepping, "step 1"))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await stepping.wait()
        lease_held_by(small, "promotion box/1")
    assert small.weights() == {Slot.BLUE: 90, Slot.GREEN: 10}
    assert lease_held_by(small, "") == ""
    result = await run_canary(small.cluster, CANARY, PLAN)
    assert (result.outcome, result.resumed) == (Outcome.PROMOTED, True)


async def test_who_rolls_back_takes_the_lease_at_once_and_the_first_cannot_write_any_more(small: SmallCluster) -> None:
    stepping = anyio.Event()
    plan = replace(PLAN, hold_s=30.0)

    async def first() -> None:
        with pytest.raises(LeaseLostError, match="now held by canary"):
            await run_canary(small.cluster, CANARY, plan, progress=when(stepping, "step 1"))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await stepping.wait()
        result = await roll_back(small.cluster, NAMESPACE, NAME, PROFILE)
    assert result is not None
    assert (result.outcome, result.cause) == (Outcome.ROLLED_BACK, "asked for")
    assert (small.weights(), small.runs()) == ({Slot.BLUE: 100}, {Slot.BLUE})


async def test_interrupted_it_rolls_back_before_it_ends(small: SmallCluster) -> None:
    stepping = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(
            partial(run_canary, small.cluster, CANARY, replace(PLAN, hold_s=30.0), progress=when(stepping, "step 1"))
        )
        await stepping.wait()
        group.cancel_scope.cancel()
    assert (small.weights(), small.runs()) == ({Slot.BLUE: 100}, {Slot.BLUE})
    route = small.route()
    assert route is not None
    assert not [key for key in route["metadata"]["annotations"] if key.startswith("canary.")]


def busy_once(small: SmallCluster, method: str, status: int) -> None:
    """Fail the next request of a method to the route; a negative status is answered after it was taken."""
    failures = [status]

    def fault(asked: str, path: str) -> int:
        return failures.pop() if failures and asked == method and "/httproutes/" in path else 0

    small.world.fault = fault


BUSY = [("PUT", -504), ("PUT", 503), ("PUT", 429), ("GET", 429), ("GET", 500)]


@pytest.mark.parametrize(("method", "status"), BUSY)
async def test_a_busy_api_server_ends_no_canary(small: SmallCluster, method: str, status: int) -> None:
    def progress(said: str) -> None:
        if said.startswith("step 1"):
            busy_once(small, method, status)

    result = await run_canary(small.cluster, CANARY, PLAN, progress=progress)
    assert (result.outcome, result.cause) == (Outcome.PROMOTED, "")
    assert (small.weights(), small.runs()) == ({Slot.GREEN: 100}, {Slot.GREEN})


@pytest.mark.parametrize(("method", "status"), BUSY)
async def test_who_takes_over_outlasts_a_busy_api_server(small: SmallCluster, method: str, status: int) -> None:
    adopted = await adopt(small.cluster, NAMESPACE, NAME, PROFILE)
    assert adopted.state is not None
    canary = Canary("id", Slot.GREEN, NEW, (10, 100), "2026-01-01", "me", OLD)
    async with kubernetes(small.cluster) as client:
        held = HeldRoute(client, SPEC, GatewayRef(), adopted.state)
        await held.move(begun(adopted.state, canary))
        busy_once(small, method, status)
        assert await held.take_over("another")
    route = small.route()
    assert route is not None
    assert read_state(route) == held.state == begun(adopted.state, replace(canary, holder="another"))


async def test_a_write_whose_answer_never_came_is_still_its_own(small: SmallCluster) -> None:
    adopted = await adopt(small.cluster, NAMESPACE, NAME, PROFILE)
    assert adopted.state is not None
    taken = False

    def gone_once_taken(asked: str, _: str) -> int:
        nonlocal taken
        was_taken, taken = taken, taken or asked == "PUT"
        return 503 if was_taken else -504 if taken else 0

    async with kubernetes(small.cluster) as client:
        held = HeldRoute(client, SPEC, GatewayRef(), adopted.state)
        small.world.fault = gone_once_taken
        with pytest.raises(ClusterError, match="not written in 20 attempts, at last: ServiceUnavailable"):
            await held.move(replace(adopted.state, revision=2))
        small.world.fault = None
        await held.move(replace(adopted.state, revision=3))
    route = small.route()
    assert route is not None
    assert read_state(route) == held.state == replace(adopted.state, revision=3)


async def test_a_refusal_is_said_at_once(small: SmallCluster) -> None:
    adopted = await adopt(small.cluster, NAMESPACE, NAME, PROFILE)
    assert adopted.state is not None
    async with kubernetes(small.cluster) as client:
        held = HeldRoute(client, SPEC, GatewayRef(), adopted.state)
        busy_once(small, "PUT", 403)
        with pytest.raises(ClusterError, match="Forbidden"):
            await held.move(replace(adopted.state, revision=2))
    assert held.state == adopted.state


async def test_a_route_that_somebody_changed_is_not_written(small: SmallCluster) -> None:
    await adopt(small.cluster, NAMESPACE, NAME, PROFILE)
    route = small.route()
    assert route is not None
    route["spec"]["rules"][0]["backendRefs"][0]["weight"] = 70_000
    with pytest.raises(ClusterError, match="somebody changed it: its weights are blue 7"):
        await run_canary(small.cluster, CANARY, PLAN)
