from __future__ import annotations

import socket
import ssl
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener

from ci.node.pki import create_authority
from servepath.bench.compare import BenchProgress, compare
from servepath.bench.load import Slot, open_client, run_block
from servepath.bench.model import Arrivals, BenchPlan, ErrorClass, Metric
from servepath.bench.schedule import arrival_times_s
from servepath.errors import ClusterError, UsageError
from servepath.serving.model import ServingPath
from tests.unit.bench.sse_server import Behaviour, Recorder, serve

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.bench.model import Sample
    from servepath.serving.model import Endpoint

pytestmark = pytest.mark.anyio
PLAN = BenchPlan(output_tokens=5, connect_timeout_s=2, request_timeout_s=5, bootstrap_resamples=500)
TOLERANCE_S = 0.15  # a busy machine wakes a task late, never early


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def slots(intended_s: list[float]) -> list[Slot]:
    return [Slot("raw", 0, index, at_s, f"prompt {index}") for index, at_s in enumerate(intended_s)]


async def load(endpoint: Endpoint, intended_s: list[float], plan: BenchPlan = PLAN) -> tuple[Sample, ...]:
    async with open_client(endpoint, plan) as client:
        return await run_block(client, endpoint.model, slots(intended_s), plan)


async def test_measured_latencies_are_the_ones_that_the_server_makes() -> None:
    async with serve(Behaviour(ttft_s=0.2, itl_s=0.1)) as server:
        samples = await load(server.endpoint(), [0.0, 0.05, 0.1])

    for sample in samples:
        assert sample.error is None
        (ttft_s,) = sample.values_s(Metric.TTFT)
        gaps_s = sample.values_s(Metric.ITL)
        (e2e_s,) = sample.values_s(Metric.E2E)
        assert 0.2 <= ttft_s < 0.2 + TOLERANCE_S
        assert len(gaps_s) == 4
        assert sum(gaps_s) == pytest.approx(0.4, abs=TOLERANCE_S)
        assert 0.6 <= e2e_s < 0.6 + 2 * TOLERANCE_S
        assert (sample.prompt_tokens, sample.completion_tokens) == (14, 5)


async def test_requests_are_sent_on_time_although_earlier_ones_have_not_ended() -> None:
    async with serve(Behaviour(ttft_s=0.6)) as server:
        samples = await load(server.endpoint(), [0.0, 0.05, 0.1])

    assert samples[2].sent_s < samples[0].end_s
    assert all(0 <= sample.lateness_s < TOLERANCE_S for sample in samples)


async def test_latency_counts_from_the_intended_time_when_the_client_is_late() -> None:
    async with serve(Behaviour()) as server, open_client(server.endpoint(), PLAN) as client:

        async def block_the_client() -> None:
            time.sleep(0.2)  # noqa: ASYNC251  # the stall under test

        async with anyio.create_task_group() as group:
            group.start_soon(block_the_client)
            (sample,) = await run_block(client, "tiny", slots([0.05]), PLAN)

    assert sample.lateness_s >= 0.1
    assert sample.values_s(Metric.TTFT)[0] >= sample.lateness_s
    assert sample.values_s(Metric.E2E)[0] >= sample.lateness_s


async def test_a_closed_loop_keeps_its_users_busy_and_counts_from_the_actual_send() -> None:
    plan = replace(PLAN, arrivals=Arrivals.CLOSED, users=3, output_tokens=1)
    async with serve(Behaviour(ttft_s=0.1)) as server:
        samples = await load(server.endpoint(), [0.0] * 9, plan)

    assert [sample.index for sample in samples] == list(range(9))
    assert all(sample.ok and sample.lateness_s < 0.05 for sample in samples)
    begun = sorted(sample.intended_s for sample in samples)
    in_flight = [sum(one.intended_s <= at_s < one.end_s for one in samples) for at_s in begun]
    assert max(in_flight) == 3
    assert begun[3] >= 0.1
    assert all(0.1 <= sample.values_s(Metric.TTFT)[0] < 0.1 + TOLERANCE_S for sample in samples)


async def test_a_closed_loop_with_more_users_than_requests_ends() -> None:
    async with serve(Behaviour()) as server:
        samples = await load(server.endpoint(), [0.0], replace(PLAN, arrivals=Arrivals.CLOSED, users=8))

    assert [sample.ok for sample in samples] == [True]


async def test_a_burst_is_sent_at_once() -> None:
    plan = replace(PLAN, arrivals=Arrivals.BURST, burst_size=3, requests_per_block=6, rate_per_s=10)
    async with serve(Behaviour(ttft_s=0.05)) as server:
        samples = await load(server.endpoint(), list(arrival_times_s(plan, 0)), plan)

    assert [round(sample.intended_s, 3) for sample in samples] == [0, 0, 0, 0.3, 0.3, 0.3]
    assert all(0 <= sample.lateness_s < TOLERANCE_S for sample in samples)


async def test_the_request_asks_for_a_stream_of_exact_length_and_says_who_it_is() -> None:
    async with serve(Behaviour()) as server:
        await load(server.endpoint(ServingPath.KSERVE, api_key="s3cret-key"), [0.0])

    (body,) = server.bodies
    assert body["ignore_eos"] is True
    assert body["max_tokens"] == 5
    assert body["stream_options"] == {"include_usage": True}
    assert server.headers[0]["host"] == "kserve.servepath.test"
    assert server.headers[0]["authorization"] == "bearer s3cret-key"


@pytest.mark.parametrize(
    ("behaviour", "error", "detail"),
    [
        (Behaviour(status=503), ErrorClass.STATUS, "HTTP 503"),
        (Behaviour(ttft_s=30), ErrorClass.TIMEOUT, "no end within"),
        (Behaviour(cut_after_tokens=2), ErrorClass.TRUNCATED, "closed"),
        (Behaviour(drop_connection=True), ErrorClass.TRUNCATED, "disconnected"),
        (Behaviour(reset_after_tokens=2), ErrorClass.TRUNCATED, "reset"),
        (Behaviour(raw_answer=b"SSH-2.0-OpenSSH_9\r\n\r\n"), ErrorClass.MALFORMED, "SSH"),
        (Behaviour(without_content=True), ErrorClass.EMPTY, "no content"),
        (Behaviour(raw_event="{"), ErrorClass.MALFORMED, "JSON"),
        (Behaviour(raw_event='{"error": {"message": "engine died"}}'), ErrorClass.MALFORMED, "engine died"),
        (Behaviour(content_type="application/json"), ErrorClass.MALFORMED, "application/json"),
    ],
)
async def test_each_misbehaviour_has_its_error_class(behaviour: Behaviour, error: ErrorClass, detail: str) -> None:
    async with serve(behaviour) as server:
        timeout_s = 0.3 if error is ErrorClass.TIMEOUT else 10
        (sample,) = await load(server.endpoint(), [0.0], replace(PLAN, request_timeout_s=timeout_s))

    assert sample.error is error
    assert detail in sample.error_detail or error is ErrorClass.MALFORMED
    assert sample.error_detail


async def test_a_cut_stream_keeps_the_tokens_that_came() -> None:
    async with serve(Behaviour(cut_after_tokens=2)) as server:
        (sample,) = await load(server.endpoint(), [0.0])

    assert len(sample.token_times_s) == 2


async def test_nothing_listening_is_a_connect_error() -> None:
    async with serve(Behaviour()) as server:
        endpoint = server.endpoint()
    (sample,) = await load(endpoint, [0.0])

    assert sample.error is ErrorClass.CONNECT
    assert sample.error_detail


async def test_a_connection_that_does_not_open_in_time_is_a_connect_error() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        endpoint = Recorder(base_url=f"http://127.0.0.1:{address[1]}").endpoint()
        with socket.create_connection(address):
            (sample,) = await load(endpoint, [0.0], replace(PLAN, connect_timeout_s=0.2))

    assert sample.error is ErrorClass.CONNECT
    assert "within 0.2 s" in sample.error_detail


async def test_https_is_really_tls_and_a_certificate_of_nobody_is_a_connect_error(tmp_path: Path) -> None:
    pair = create_authority(tmp_path).issue("server", "server", hosts=("127.0.0.1",))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = plain.extra(SocketAttribute.local_port)  # noqa: S610  # no Django
    listener = TLSListener(plain, context)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, anyio.aclose_forcefully)
        (sample,) = await load(Recorder(base_url=f"https://127.0.0.1:{port}").endpoint(), [0.0])
        group.cancel_scope.cancel()

    assert sample.error is ErrorClass.CONNECT
    assert "certificate verify failed" in sample.error_detail


QUICK = BenchPlan(
    blocks=6,
    requests_per_block=2,
    rate_per_s=50,
    output_tokens=3,
    warmup_requests=1,
    bootstrap_resamples=500,
    budget_s=0,
)


async def test_a_comparison_finds_a_slower_path_and_its_size() -> None:
    seen: list[BenchProgress] = []
    plan = replace(QUICK, blocks=8)
    async with (
        serve(Behaviour(ttft_s=0.1, itl_s=0.02)) as fast,
        serve(Behaviour(ttft_s=0.4, itl_s=0.02)) as slow,
    ):
        endpoints = {"raw": fast.endpoint(), "kserve": slow.endpoint(ServingPath.KSERVE)}
        result = await compare(endpoints, plan, seen.append)

    (ttft,) = [ratio for ratio in result.ratios if ratio.metric is Metric.TTFT]
    assert ttft.differs
    assert ttft.verdict.startswith("kserve is ")
    assert ttft.low < 4 < ttft.high * 1.3
    assert 2.5 < ttft.ratio < 4.2
    assert "kserve against raw: TTFT " in result.headline
    assert result.baseline == "raw"
    assert [summary.path for summary in result.summaries] == ["raw", "kserve"]
    assert len(result.samples) == 32
    assert all(summary.request_count == 16 and summary.error_count == 0 for summary in result.summaries)
    assert seen[-1].done_requests == seen[-1].total_requests == 34
    assert all(sample.block >= 0 for sample in result.samples)


async def test_paths_alternate_and_prompts_are_never_repeated() -> None:
    async with serve(Behaviour()) as server:
        result = await compare({"a": server.endpoint(), "b": server.endpoint()}, QUICK)

    assert sorted(result.order) == [("a", "b")] * 3 + [("b", "a")] * 3
    assert len(set(server.prompts())) == len(server.prompts())


async def test_prompts_have_the_wanted_length_by_the_servers_usage() -> None:
    async with serve(Behaviour(template_tokens=10)) as server:
        result = await compare({"a": server.endpoint(), "b": server.endpoint()}, replace(QUICK, prompt_tokens=64))

    assert {sample.prompt_tokens for sample in result.samples} == {74}


async def test_errors_are_counted_by_class_and_give_no_latency() -> None:
    async with serve(Behaviour()) as good, serve(Behaviour(cut_after_tokens=1)) as bad:
        endpoints = {"raw": good.endpoint(), "kserve": bad.endpoint(ServingPath.KSERVE)}
        result = await compare(endpoints, replace(QUICK, warmup_requests=0))

    _, kserve = result.summaries
    assert kserve.errors == {"truncated": 12}
    assert kserve.error_rate == 1
    assert kserve.latencies == ()
    assert result.ratios == ()
    assert result.headline.startswith("no ratio")


async def test_a_path_that_never_answers_stops_the_run_with_the_next_command() -> None:
    async with serve(Behaviour()) as good, serve(Behaviour(status=503)) as bad:
        endpoints = {"raw": good.endpoint(), "kserve": bad.endpoint(ServingPath.KSERVE)}
        with pytest.raises(ClusterError) as caught:
            await compare(endpoints, QUICK)

    assert "HTTP 503" in caught.value.what
    assert caught.value.next_command == "kubectl -n models logs deployment/tiny-kserve --tail=50"


async def test_a_server_without_usage_is_refused_unless_a_tokenizer_is_given() -> None:
    async with serve(Behaviour(without_usage=True)) as server:
        with pytest.raises(ClusterError, match="no usage"):
            await compare({"a": server.endpoint(), "b": server.endpoint()}, QUICK)


async def test_a_run_whose_client_was_held_up_is_not_usable() -> None:
    plan = replace(QUICK, requests_per_block=4, max_lateness_p95_s=0.05)

    async def hold_up(stop: anyio.Event) -> None:
        while not stop.is_set():
            time.sleep(0.12)  # noqa: ASYNC251  # what a machine without enough CPU does to the client
            await anyio.sleep(0.01)

    async with serve(Behaviour()) as server, anyio.create_task_group() as group:
        stop = anyio.Event()
        group.start_soon(hold_up, stop)
        result = await compare({"a": server.endpoint(), "b": server.endpoint()}, plan)
        stop.set()

    assert not result.client.kept_schedule
    assert result.client.lateness_p95_s > 0.05
    assert result.headline.startswith("not usable: the client sent its requests")


async def test_one_endpoint_is_no_comparison() -> None:
    with pytest.raises(UsageError, match="1 endpoints"):
        await compare({"raw": Recorder(base_url="http://127.0.0.1:9").endpoint()}, QUICK)
