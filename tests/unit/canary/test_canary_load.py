"""What is asked of a gateway: by its clients, by the paired measurement, and by who awaits that it follows."""

from __future__ import annotations

import re

import anyio
import pytest

from servepath.bench.model import MIN_BLOCKS, BenchPlan, Metric
from servepath.canary.gateway import await_taken, prove
from servepath.canary.load import ClientLoad
from servepath.canary.model import ClientPlan
from servepath.canary.pairs import CANARY, STABLE, paired_load
from servepath.errors import ClusterError
from servepath.serving.slots import Slot
from tests.unit.canary.split_gateway import SplitGateway, split_gateway

pytestmark = pytest.mark.anyio

CLIENT = ClientPlan(rate_per_s=100.0, output_tokens=3, timeout_s=5.0)
BENCH = BenchPlan(requests_per_block=1, prompt_tokens=8, output_tokens=6, warmup_requests=1, bootstrap_resamples=200)


async def loaded(gateway: SplitGateway, seconds: float, *, both: bool = False) -> ClientLoad:
    load = ClientLoad(gateway.endpoint(), CLIENT, anyio.current_time())
    if both:
        load.both = {slot: gateway.endpoint(slot) for slot in Slot}
    async with anyio.create_task_group() as group:
        group.start_soon(load.run)
        await anyio.sleep(seconds)
        load.end()
    return load


async def test_clients_are_sent_at_their_rate_and_know_who_answered() -> None:
    async with split_gateway() as gateway:
        gateway.weights = {Slot.BLUE: 75, Slot.GREEN: 25}
        requests = (await loaded(gateway, 0.4)).requests
    assert 20 <= len(requests) <= 41
    assert [request.error for request in requests if request.error] == []
    share = sum(request.slot is Slot.GREEN for request in requests) / len(requests)
    assert 0.15 <= share <= 0.35
    assert all(request.ttft_s and request.sent_s < request.ended_s for request in requests)


async def test_while_both_serve_both_carry_the_same_load_whatever_the_weights() -> None:
    async with split_gateway() as gateway:
        gateway.weights = {Slot.BLUE: 95, Slot.GREEN: 5}
        requests = (await loaded(gateway, 0.5, both=True)).requests
        asked = {slot: engine.asked for slot, engine in gateway.engines.items()}
    assert asked[Slot.BLUE] == asked[Slot.GREEN] == len(requests)


async def test_a_failed_request_is_kept_with_what_it_came_to() -> None:
    async with split_gateway() as gateway:
        gateway.weights = {Slot.BLUE: 50, Slot.GREEN: 50}
        gateway.engines[Slot.GREEN].status = 500
        load = await loaded(gateway, 0.2)
    assert {request.slot for request in load.requests if request.error} == {Slot.GREEN}
    assert all(request.error.startswith("status: HTTP 500") for request in load.requests if request.slot is Slot.GREEN)
    assert load.since(1e9) == []
    assert len(load.since(0.0)) == len(load.requests)


async def test_a_gateway_that_does_not_name_slots_leaves_them_unknown() -> None:
    async with split_gateway() as gateway:
        gateway.names_slots = False
        requests = (await loaded(gateway, 0.1, both=True)).requests
    assert {(request.slot, request.error) for request in requests} == {(None, "")}


async def test_clients_of_a_gateway_that_is_gone_fail_and_the_load_goes_on() -> None:
    gateway = SplitGateway(base_url="http://127.0.0.1:9")
    requests = (await loaded(gateway, 0.1)).requests
    assert len(requests) >= 9
    assert all(request.error.startswith("connect") for request in requests)


async def test_both_slots_are_measured_in_pairs_by_their_header() -> None:
    async with split_gateway() as gateway:
        gateway.engines[Slot.GREEN].ttft_s = 0.2
        async with paired_load(gateway.endpoint(Slot.BLUE), gateway.endpoint(Slot.GREEN), BENCH) as pairs:
            found = await pairs.hold(0.0, lambda _: False)
            assert len(found.order) == MIN_BLOCKS
            again = await pairs.hold(0.1, lambda _: False)
    assert len(again.order) > MIN_BLOCKS
    assert {summary.path: summary.error_count for summary in again.summaries} == {STABLE: 0, CANARY: 0}
    ttft = next(ratio for ratio in again.ratios if ratio.metric is Metric.TTFT)
    assert ttft.ratio > 2
    assert {frozenset(names) for names in again.order} == {frozenset({STABLE, CANARY})}


async def test_a_hold_ends_when_nothing_can_help_any_more() -> None:
    async with (
        split_gateway() as gateway,
        paired_load(gateway.endpoint(Slot.BLUE), gateway.endpoint(Slot.GREEN), BENCH) as pairs,
    ):
        gateway.engines[Slot.GREEN].status = 500
        found = await pairs.hold(60.0, lambda samples: any(not one.ok for one in samples))
    assert len(found.order) == 1


async def test_a_slot_that_answers_no_warm_up_is_an_error() -> None:
    async with split_gateway() as gateway:
        gateway.engines[Slot.GREEN].status = 500
        with pytest.raises(ClusterError, match="canary answered none of its 1 warm-up requests"):
            async with paired_load(gateway.endpoint(Slot.BLUE), gateway.endpoint(Slot.GREEN), BENCH):
                pass


@pytest.mark.parametrize(("others", "state"), [((1, 2), 3), ((3, 2), 1), ((3, 1), None)])
async def test_a_state_is_taken_when_the_gateway_answers_by_it(others: tuple[int, int], state: int | None) -> None:
    async with split_gateway() as gateway, anyio.create_task_group() as group:
        taken: list[int] = []

        async def awaiting() -> None:
            await await_taken(gateway.endpoint(), state, timeout_s=10)
            taken.append(gateway.revision)

        gateway.revision = others[0]
        group.start_soon(awaiting)
        for gateway.revision in others:
            await anyio.sleep(0.25)
            assert taken == []
        gateway.revision = state or 0  # which it does not say
    assert taken == [state or 0]


async def test_a_gateway_that_does_not_follow_is_an_error_that_says_what_was_seen() -> None:
    async with split_gateway() as gateway:
        with pytest.raises(ClusterError, match=re.escape("HTTP 200, servepath-revision: 1")):
            await await_taken(gateway.endpoint(), 2, timeout_s=2)
    with pytest.raises(ClusterError, match="ConnectError"):
        await await_taken(SplitGateway(base_url="http://127.0.0.1:9").endpoint(), 2, timeout_s=2)


async def test_a_slot_is_proved_by_its_model_and_a_completion() -> None:
    async with split_gateway() as gateway:
        gateway.unready = 2
        await prove(gateway.endpoint(Slot.GREEN), timeout_s=5)
        assert (gateway.engines[Slot.GREEN].asked, gateway.engines[Slot.BLUE].asked) == (1, 0)


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("other", 200, "it serves other and not tiny"),
        ("tiny", 404, "its first completion is HTTP 404"),
        ("tiny", 500, "its first completion is HTTP 500"),
    ],
)
async def test_a_slot_that_serves_something_else_is_not_proved(model: str, status: int, words: str) -> None:
    async with split_gateway() as gateway:
        gateway.engines[Slot.GREEN].model, gateway.engines[Slot.GREEN].status = model, status
        with pytest.raises(ClusterError, match=words):
            await prove(gateway.endpoint(Slot.GREEN), timeout_s=5)


async def test_a_slot_that_does_not_answer_in_time_is_not_proved() -> None:
    async with split_gateway() as gateway:
        gateway.unready = 10_000
        with pytest.raises(ClusterError, match="last seen: HTTP 503"):
            await prove(gateway.endpoint(Slot.GREEN), timeout_s=0.3)
