from __future__ import annotations

import json
import os
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from servepath.bench.instrument import (
    StreamLoad,
    endpoint_of,
    measure_instrument,
    overheads_s,
    paced_server,
    read_timings,
)
from servepath.bench.load import Slot, open_client, run_block
from servepath.bench.model import BenchPlan, Metric, Sample
from servepath.bench.paced_server import Pace, Timing
from servepath.errors import CheckFailedError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio
EARLY_S = 0.0005  # what a clock may round


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def run_against(pace: Pace, *, tokens: int, requests: int = 3) -> tuple[tuple[Sample, ...], dict[str, Timing]]:
    plan = BenchPlan(output_tokens=tokens, request_timeout_s=10)
    slots = [Slot("raw", 0, index, 0.01 * index, f"prompt {index}") for index in range(requests)]
    async with paced_server(pace) as url, open_client(endpoint_of(url), plan) as client:
        samples = await run_block(client, "paced", slots, plan)
        return samples, await read_timings(url)


async def test_the_paced_server_never_sends_before_its_schedule_and_says_when_it_sent() -> None:
    samples, timings = await run_against(Pace(first_token_s=0.05, gap_s=0.02), tokens=5)

    assert sorted(timings) == ["prompt 0", "prompt 1", "prompt 2"]
    for timing in timings.values():
        assert timing.chunk_times_s[0] - timing.received_s >= 0.05 - EARLY_S
        assert timing.chunk_times_s[-1] - timing.received_s >= 0.05 + 4 * 0.02 - EARLY_S
        assert all(late > early for early, late in pairwise(timing.chunk_times_s))
        assert timing.end_s >= timing.chunk_times_s[-1]
    assert all((sample.ok, len(sample.token_times_s), sample.completion_tokens) == (True, 5, 5) for sample in samples)


async def test_the_client_never_measures_less_than_the_server_did() -> None:
    samples, timings = await run_against(Pace(first_token_s=0.03, gap_s=0.01), tokens=4)

    for index, sample in enumerate(samples):
        timing = timings[f"prompt {index}"]
        assert overheads_s(Metric.TTFT, sample, timing)[0] > 0
        assert overheads_s(Metric.E2E, sample, timing)[0] > 0
        assert len(overheads_s(Metric.ITL, sample, timing)) == 3


async def test_several_tokens_in_a_chunk_are_seen_by_the_cross_check() -> None:
    samples, _ = await run_against(Pace(first_token_s=0.01, gap_s=0.01, tokens_per_chunk=4), tokens=10)

    assert {(len(sample.token_times_s), sample.completion_tokens) for sample in samples} == {(3, 10)}


async def test_many_tokens_without_a_gap_all_arrive() -> None:
    samples, _ = await run_against(Pace(first_token_s=0.0, gap_s=0.0), tokens=3000, requests=2)

    assert [len(sample.token_times_s) for sample in samples] == [3000, 3000]


async def test_the_paced_server_answers_what_other_tools_ask_first() -> None:
    async with paced_server(Pace(0.0, 0.0)) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        models = (await client.get("/v1/models")).json()
        parts = [{"type": "text", "text": "a b"}, {"type": "text", "text": " c"}]
        body = {"messages": [{"role": "user", "content": parts}], "max_completion_tokens": 2, "stream": True}
        answer = await client.post("/v1/chat/completions", json=body)

    assert [model["id"] for model in models["data"]] == ["paced"]
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert json.loads(events[-3])["choices"][0]["finish_reason"] == "length"


async def test_the_instrument_states_every_number_of_streams() -> None:
    loads = [StreamLoad(1, 0.01, 4, 0.2), StreamLoad(8, 0.01, 4, 0.2)]
    result = await measure_instrument(loads)

    assert [point.streams for point in result.points] == [1, 8]
    for point in result.points:
        assert point.request_count >= 4
        assert 0 < point.ttft_overhead_p50_s <= point.ttft_overhead_p95_s < 1
        assert 0 < point.e2e_overhead_p95_s < 1
        assert 0 < point.cpu_share < 1.1
        assert point.tokens_per_s > 10


async def test_a_client_that_is_held_up_shows_in_its_overhead() -> None:
    stop = anyio.Event()

    async def hold_up() -> None:
        while not stop.is_set():
            time.sleep(0.1)  # noqa: ASYNC251  # the client's own slowness under test
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as group:
        group.start_soon(hold_up)
        result = await measure_instrument([StreamLoad(4, 0.01, 4, 0.4)])
        stop.set()

    assert result.points[0].ttft_overhead_p95_s > 0.05
    assert result.points[0].cpu_share < 1.1


async def test_failing_requests_are_an_error_that_says_what_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servepath.bench.load.CHAT_PATH", "/v1/models")
    with pytest.raises(CheckFailedError, match=r"of 8 requests failed \(malformed.*ulimit"):
        await measure_instrument([StreamLoad(4, 0.01, 4, 0.04)])


async def test_a_server_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(CheckFailedError, match="did not start"):
        await measure_instrument([StreamLoad(1, 0.01, 1, 0.1)])


async def test_the_paced_server_ends_with_its_standard_input() -> None:
    command = [sys.executable, "-m", "servepath.bench.paced_server"]
    async with await anyio.open_process(command) as process:
        assert process.stdout
        assert process.stdin
        await process.stdout.receive()
        await process.stdin.aclose()
        with anyio.fail_after(10):
            assert await process.wait() == 0
    assert not os.path.exists(f"/proc/{process.pid}")  # noqa: PTH110, ASYNC240
