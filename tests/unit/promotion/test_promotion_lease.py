"""One at a time: who waits, who takes over, and who must stop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from lightkube.resources.coordination_v1 import Lease

from servepath.cluster.lease import LeaseLostError, hold, lease_name
from servepath.cluster.model import LeaseTimes
from servepath.errors import PromotionRefusedError
from tests.unit.promotion.examples import NAMESPACE, RELEASE

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from tests.unit.promotion.api_server import World

pytestmark = pytest.mark.anyio

QUICK = LeaseTimes(duration_s=2, renew_s=0.2, wait_s=0.5, poll_s=0.02)
PATIENT = replace(QUICK, wait_s=20.0)


async def holder(client: AsyncClient) -> tuple[str | None, int | None]:
    lease = await client.get(Lease, lease_name(RELEASE), namespace=NAMESPACE)
    assert lease.spec is not None
    return lease.spec.holderIdentity, lease.spec.leaseTransitions


async def test_it_is_held_renewed_and_let_go(client: AsyncClient) -> None:
    async with hold(client, NAMESPACE, RELEASE, "a", QUICK):
        assert await holder(client) == ("a", 1)
        first = await client.get(Lease, lease_name(RELEASE), namespace=NAMESPACE)
        with anyio.fail_after(20):
            while True:
                now = await client.get(Lease, lease_name(RELEASE), namespace=NAMESPACE)
                assert first.spec is not None
                assert now.spec is not None
                if now.spec.renewTime != first.spec.renewTime:
                    break
                await anyio.sleep(0.02)
    assert await holder(client) == ("", 1)
    async with hold(client, NAMESPACE, RELEASE, "b", QUICK):
        assert await holder(client) == ("b", 2)


async def test_a_second_one_is_refused_while_the_first_renews(client: AsyncClient) -> None:
    long_enough = replace(QUICK, wait_s=5.0)
    async with hold(client, NAMESPACE, RELEASE, "a", QUICK):
        with pytest.raises(PromotionRefusedError, match="a holds the Lease") as caught:
            async with hold(client, NAMESPACE, RELEASE, "b", long_enough):
                pytest.fail("two hold it")
        assert await holder(client) == ("a", 1)
    assert caught.value.exit_code == 8


async def test_a_second_one_waits_for_the_first(client: AsyncClient) -> None:
    order: list[str] = []

    async def one(name: str, started: anyio.Event) -> None:
        async with hold(client, NAMESPACE, RELEASE, name, PATIENT):
            started.set()
            order.append(f"{name} begins")
            await anyio.sleep(0.1)
            order.append(f"{name} ends")

    async with anyio.create_task_group() as group:
        begun = anyio.Event()
        group.start_soon(one, "a", begun)
        await begun.wait()
        for name in ("b", "c"):
            group.start_soon(one, name, anyio.Event())
    assert order[:2] == ["a begins", "a ends"]
    assert all(order[at].split()[0] == order[at + 1].split()[0] for at in (0, 2, 4)), "they do not overlap"


async def test_of_many_at_once_one_holds_it(client: AsyncClient) -> None:
    inside = 0

    async def one(name: str) -> None:
        nonlocal inside
        async with hold(client, NAMESPACE, RELEASE, name, PATIENT):
            inside += 1
            assert inside == 1
            await anyio.sleep(0.01)
            inside -= 1

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(one, str(number))
    assert await holder(client) == ("", 8)


async def test_that_of_a_killed_holder_is_taken_over_once_it_ran_out(client: AsyncClient, world: World) -> None:
    async with hold(client, NAMESPACE, RELEASE, "killed", QUICK):
        left = dict(world.objects)
    world.objects.update(left)  # as if it had never been let go
    began = anyio.current_time()
    async with hold(client, NAMESPACE, RELEASE, "next", PATIENT):
        assert anyio.current_time() - began >= QUICK.duration_s
        assert await holder(client) == ("next", 2)


async def test_whoever_lost_it_is_stopped_and_does_not_let_it_go(client: AsyncClient, world: World) -> None:
    with pytest.raises(LeaseLostError, match="now held by other"):  # noqa: PT012
        async with hold(client, NAMESPACE, RELEASE, "a", QUICK):
            lease = world.objects["leases", NAMESPACE, lease_name(RELEASE)]
            taken = {**lease, "spec": {**lease["spec"], "holderIdentity": "other"}}
            world.put("leases", NAMESPACE, taken)
            await anyio.sleep(20)
            pytest.fail("it went on")
    assert await holder(client) == ("other", 1)


async def test_an_api_server_that_does_not_answer_in_time_ends_it(client: AsyncClient, world: World) -> None:
    began = anyio.current_time()
    with pytest.raises(LeaseLostError, match="could not be renewed in 2 s"):  # noqa: PT012
        async with hold(client, NAMESPACE, RELEASE, "a", QUICK):
            world.fault = lambda method, _: 503 if method == "PUT" else 0
            await anyio.sleep(20)
            pytest.fail("it went on")
    assert anyio.current_time() - began < 10


async def test_an_api_server_that_is_away_for_a_moment_does_not(client: AsyncClient, world: World) -> None:
    refused = 0

    def once(method: str, _: str) -> int:
        nonlocal refused
        refused += method == "PUT"
        return 503 if method == "PUT" and refused == 1 else 0

    async with hold(client, NAMESPACE, RELEASE, "a", QUICK):
        world.fault = once
        await anyio.sleep(1.2)
        assert refused > 1
    assert await holder(client) == ("", 1)


async def test_what_the_block_raises_comes_out_as_itself_and_the_lease_is_let_go(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="inside"):
        async with hold(client, NAMESPACE, RELEASE, "a", QUICK):
            raise ValueError("inside")
    assert await holder(client) == ("", 1)


async def test_what_the_block_raises_is_heard_of_also_where_it_was_interrupted(client: AsyncClient) -> None:
    with anyio.CancelScope() as scope, pytest.raises(ValueError, match="not put back"):  # noqa: PT012
        async with hold(client, NAMESPACE, RELEASE, "a", QUICK):
            scope.cancel()
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError("not put back")
    assert await holder(client) == ("", 1)
