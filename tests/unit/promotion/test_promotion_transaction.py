"""A promotion that is killed at any request to the API server is finished or undone by the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lightkube.codecs import from_dict
from lightkube.resources.core_v1 import Service

from servepath.cluster.client import kubernetes
from servepath.errors import ClusterError
from servepath.promotion.before import Before
from servepath.promotion.history import read_history
from servepath.promotion.record import Record, Stage, State
from servepath.promotion.restore import NoWaits, take_snapshot
from servepath.promotion.transaction import KILLED, begin, recover
from tests.unit.promotion.api_server import TAKEN_AND_UNANSWERED
from tests.unit.promotion.examples import NAMESPACE, RELEASE, record, service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from tests.unit.promotion.api_server import World

pytestmark = pytest.mark.anyio

TRAFFIC = "smol-route"
"""Stands for the route: its port says which version clients are led to."""


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


def no_waits(_: Record) -> NoWaits:
    return NoWaits()


class Promotion:
    """Steps like those of a promotion: make the new version, lead clients to it, stop the old one."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def nothing(self) -> None: ...

    async def deploy(self) -> None:
        await self.client.create(from_dict(service("new")))

    async def shift(self) -> None:
        await self.client.patch(Service, TRAFFIC, {"spec": {"ports": [{"port": 2}]}}, namespace=NAMESPACE)
        await self.client.delete(Service, "old", namespace=NAMESPACE)

    def by_stage(self) -> dict[Stage, Callable[[], Awaitable[None]]]:
        return {
            Stage.COPY: self.nothing,
            Stage.DEPLOY: self.deploy,
            Stage.GATE: self.nothing,
            Stage.SHIFT: self.shift,
            Stage.VERIFY: self.nothing,
        }


async def promote(client: AsyncClient, *, fails_at: Stage | None = None) -> None:
    before = Before(await take_snapshot(client, NAMESPACE, RELEASE), was_serving=True)
    history = await read_history(client, NAMESPACE, RELEASE)
    transaction = await begin(client, record(len(history) + 1), before, no_waits)
    steps = Promotion(client).by_stage()

    async def fail() -> None:
        raise ClusterError("it failed")

    if fails_at is not None:
        steps[fails_at] = fail
    try:
        await transaction.run(steps)
        await transaction.succeed("promoted")
    except Exception as error:
        await transaction.undo(str(error))
        raise


async def next_one(client: AsyncClient, world: World) -> tuple[str, ...]:
    async def is_done(one: Record) -> bool:
        del one
        return ("services", NAMESPACE, "new") in world.objects

    return tuple(map(str, await recover(client, NAMESPACE, RELEASE, is_done, no_waits)))


def fresh(world: World) -> dict[tuple[str, str, str], Any]:
    world.objects.clear()
    world.fault = None
    world.put("services", NAMESPACE, service("old"))
    world.put("services", NAMESPACE, service(TRAFFIC, 1))
    return world.seen("services", "secrets")


def kill_at(world: World, request: int, moment: str) -> None:
    """Let the process die at one of its requests: the API server has not taken it yet, or has and tells nobody."""
    left = request

    def fault(method: str, path: str) -> int:
        nonlocal left
        del method, path
        left -= 1
        if left == 0 and moment == "after it was taken":
            return TAKEN_AND_UNANSWERED
        return 599 if left <= 0 else 0

    world.fault = fault


@example(request=22, moment="after it was taken", fails_at=Stage.VERIFY)
@given(
    request=st.integers(1, 60),
    moment=st.sampled_from(["before it was taken", "after it was taken"]),
    fails_at=st.sampled_from([None, *list(Stage)[1:]]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_wherever_it_is_killed_the_next_one_leaves_the_old_or_the_new_and_nothing_between(
    world: World, cluster: Cluster, request: int, moment: str, fails_at: Stage | None
) -> None:
    was = fresh(world)
    kill_at(world, request, moment)
    async with kubernetes(cluster) as client:
        try:
            await promote(client, fails_at=fails_at)
        except ClusterError:
            killed = True
        else:
            killed = False
        world.fault = None
        await next_one(client, world)
        history = await read_history(client, NAMESPACE, RELEASE)
        assert all(kept.record.is_over for kept in history)
        now = world.seen("services", "secrets")
        succeeded = [kept.record for kept in history if kept.record.state is State.SUCCEEDED]
        if succeeded:
            # Killed before its verification began or told, it is judged by the next one, to which all is well here.
            assert fails_at in (None, Stage.VERIFY)
            assert {key for key in now if key[0] == "services"} == {
                ("services", NAMESPACE, "new"),
                ("services", NAMESPACE, TRAFFIC),
            }
            assert now["services", NAMESPACE, TRAFFIC]["spec"]["ports"] == [{"port": 2}]
        else:
            assert killed
            assert now == was
        assert await next_one(client, world) == (), "nothing is left to be done"


async def test_each_stage_that_fails_is_undone(client: AsyncClient, world: World) -> None:
    for number, stage in enumerate(list(Stage)[1:], 1):
        was = fresh(world) if number == 1 else world.seen("services", "secrets")
        with pytest.raises(ClusterError, match="it failed"):
            await promote(client, fails_at=stage)
        assert world.seen("services", "secrets") == was
        last = (await read_history(client, NAMESPACE, RELEASE))[-1].record
        assert (last.number, last.stage, last.state, last.result) == (number, stage, State.ROLLED_BACK, "it failed")


@pytest.mark.parametrize("stage", list(Stage))
async def test_what_the_next_one_does_is_told(client: AsyncClient, world: World, stage: Stage) -> None:
    was = fresh(world)

    async def die() -> None:
        raise Killed

    before = Before(await take_snapshot(client, NAMESPACE, RELEASE), was_serving=True)
    transaction = await begin(client, record(1), before, no_waits)
    if stage is not Stage.PLAN:
        with pytest.raises(Killed):
            await transaction.run(Promotion(client).by_stage() | {stage: die})
    (told,) = await next_one(client, world)
    (kept,) = await read_history(client, NAMESPACE, RELEASE)
    if stage is Stage.VERIFY:
        assert told == "promotion 1, killed at verify: finished"
        assert kept.record.state is State.SUCCEEDED
    else:
        assert told.startswith(f"promotion 1, killed at {stage}: undone, ")
        assert (kept.record.state, kept.record.result) == (State.ROLLED_BACK, KILLED)
        assert world.seen("services", "secrets") == was


async def test_an_interrupted_one_is_undone_in_the_shadow_of_the_interrupt(client: AsyncClient, world: World) -> None:
    was = fresh(world)
    with anyio.CancelScope() as scope:
        before = Before(await take_snapshot(client, NAMESPACE, RELEASE), was_serving=True)
        transaction = await begin(client, record(1), before, no_waits)

        async def interrupt() -> None:
            scope.cancel()
            await anyio.sleep_forever()

        try:
            await transaction.run(Promotion(client).by_stage() | {Stage.VERIFY: interrupt})
        finally:
            with anyio.CancelScope(shield=True):
                await transaction.undo("interrupted")
    assert world.seen("services", "secrets") == was


def engine(name: str, *, stopped: bool) -> dict[str, Any]:
    """An InferenceService."""
    made = service(name) | {"kind": "InferenceService", "apiVersion": "serving.kserve.io/v1beta1"}
    made["metadata"]["annotations"] = {"serving.kserve.io/stop": "true" if stopped else "false"}
    return made


async def test_at_any_moment_of_an_undo_clients_are_led_to_an_engine_that_runs(
    client: AsyncClient, world: World
) -> None:
    route = service(TRAFFIC, 1) | {"kind": "HTTPRoute", "apiVersion": "gateway.networking.k8s.io/v1"}
    world.put("inferenceservices", NAMESPACE, engine("blue", stopped=False))
    world.put("inferenceservices", NAMESPACE, engine("green", stopped=True))
    world.put("httproutes", NAMESPACE, route)
    was = world.seen("inferenceservices", "httproutes", "services")

    def port() -> int:
        return int(world.objects["httproutes", NAMESPACE, TRAFFIC]["spec"]["ports"][0]["port"])

    def runs(slot: str) -> bool:
        annotations = world.objects["inferenceservices", NAMESPACE, slot]["metadata"]["annotations"]
        return bool(annotations["serving.kserve.io/stop"] == "false")

    class Looks:
        """Looks what is there while it is waited for."""

        async def for_engines(self, changed: Sequence[Any]) -> None:
            assert [obj["metadata"]["name"] for obj in changed] == ["blue"]
            assert port() == 2

        async def for_clients(self) -> None:
            assert port() == 1
            assert ("httproutes", NAMESPACE, "made") not in world.objects
            assert runs("green"), "streams that it has begun come to their end"
            assert ("services", NAMESPACE, "new") in world.objects

    before = Before(await take_snapshot(client, NAMESPACE, RELEASE), was_serving=True)
    transaction = await begin(client, record(1), before, lambda _: Looks())
    # As after a canary that was promoted: green has the traffic, blue is stopped.
    world.put("inferenceservices", NAMESPACE, engine("green", stopped=False))
    world.put("httproutes", NAMESPACE, route | {"spec": {"ports": [{"port": 2}]}})
    world.put("inferenceservices", NAMESPACE, engine("blue", stopped=True))
    made = {**route, "metadata": {**route["metadata"], "name": "made"}}
    world.put("httproutes", NAMESPACE, made)
    world.put("services", NAMESPACE, service("new"))
    led_to: list[bool] = []

    def look(method: str, path: str) -> int:
        del method, path
        led_to.append(runs("blue" if port() == 1 else "green"))
        return 0

    world.fault = look
    restored = await transaction.undo("slow")
    assert len(led_to) > 10
    assert all(led_to)
    assert [place.split("/")[1] for place in restored.put_back] == ["blue", TRAFFIC, "green"]
    assert restored.deleted == ("Service serving/new", "HTTPRoute serving/made")
    assert world.seen("inferenceservices", "httproutes", "services") == was


@pytest.mark.parametrize("fails_at", [None, Stage.GATE], ids=["promoted", "undone"])
async def test_an_api_server_that_is_away_for_a_moment_at_every_write_ends_nothing(
    client: AsyncClient, world: World, fails_at: Stage | None
) -> None:
    was = fresh(world)
    seen: set[tuple[str, str, int]] = set()

    def away_once(method: str, path: str) -> int:
        """Refuse each write of the record once, and take it without an answer once more."""
        if method != "PUT" or "configmaps" not in path:
            return 0
        attempt = (method, path, world.version)
        if attempt in seen:
            return 0
        seen.add(attempt)
        return 503 if len(seen) % 2 else -503

    world.fault = away_once
    if fails_at is None:
        await promote(client)
    else:
        with pytest.raises(ClusterError, match="it failed"):
            await promote(client, fails_at=fails_at)
    assert len(seen) > 4
    world.fault = None
    (kept,) = await read_history(client, NAMESPACE, RELEASE)
    assert kept.record.state is (State.SUCCEEDED if fails_at is None else State.ROLLED_BACK)
    if fails_at is not None:
        assert world.seen("services", "secrets") == was


async def test_an_api_server_that_stays_away_leaves_it_to_the_next_one(client: AsyncClient, world: World) -> None:
    was = fresh(world)
    before = Before(await take_snapshot(client, NAMESPACE, RELEASE), was_serving=True)
    transaction = await begin(client, record(1), before, no_waits)
    await transaction.advance(Stage.COPY)
    await transaction.advance(Stage.DEPLOY)
    await Promotion(client).deploy()
    world.fault = lambda method, _: 403 if method in {"PUT", "DELETE"} else 0
    with pytest.raises(ClusterError, match="Forbidden"):
        await transaction.undo("it failed")
    world.fault = None
    (told,) = await next_one(client, world)
    assert told == "promotion 1, killed at deploy: undone, 1 deleted"
    assert world.seen("services", "secrets") == was
