"""The load generator measured by itself: what it adds to a latency, against a server whose own times are known."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import httpx
from anyio.streams.buffered import BufferedByteReceiveStream

from servepath.bench.load import CLOCK_DIGITS, Slot, open_client, run_block
from servepath.bench.model import BenchPlan, Metric
from servepath.bench.paced_server import MODEL, TIMINGS_PATH, Pace, Timing
from servepath.bench.stats import percentile
from servepath.errors import CheckFailedError
from servepath.serving.model import Endpoint, ServingPath

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from servepath.bench.model import Sample

START_TIMEOUT_S = 10.0
MAX_PORT_LINE_BYTES = 16
OWN_PATH = "paced"


@dataclass(frozen=True, slots=True)
class Overheads:
    """The single values that a point is made of.

    Attributes:
        ttft_s: what was added to the first token of each request, in seconds.
        itl_s: what was added to each gap between two tokens.
        e2e_s: what was added to the end of each stream.
        cpu_s: CPU seconds of this process during the load, warm-up included.
        wall_s: how long the load took.
        token_count: tokens that were received during it.
    """

    ttft_s: tuple[float, ...]
    itl_s: tuple[float, ...]
    e2e_s: tuple[float, ...]
    cpu_s: float
    wall_s: float
    token_count: int


@dataclass(frozen=True, slots=True)
class InstrumentPoint:
    """What the client added at one number of concurrent streams; an overhead is the client's time minus the server's.

    The client's times count from the intended send, as those of a run do; the server's from the whole request received
    to the chunk handed to its kernel. So an overhead holds the client, both kernels and loopback.

    Attributes:
        streams: concurrent streams.
        request_count: requests that the percentiles are of, warm-up excluded.
        ttft_overhead_p50_s: median of the time added to the first token.
        ttft_overhead_p95_s: its 95th percentile.
        itl_overhead_p95_s: 95th percentile of the time added to a gap between two tokens.
        e2e_overhead_p95_s: 95th percentile of the time added to the end of the stream.
        cpu_share: CPU seconds of this process per second of the load: 1.0 is one busy core.
        tokens_per_s: tokens that the client received per second of the load.
        overheads: the values that these numbers are computed from.
    """

    streams: int
    request_count: int
    ttft_overhead_p50_s: float
    ttft_overhead_p95_s: float
    itl_overhead_p95_s: float
    e2e_overhead_p95_s: float
    cpu_share: float
    tokens_per_s: float
    overheads: Overheads


@dataclass(frozen=True, slots=True)
class Instrument:
    """The load generator at rising numbers of streams."""

    points: tuple[InstrumentPoint, ...]


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """A number of streams kept open at once, by a constant arrival rate.

    Attributes:
        streams: concurrent streams.
        gap_s: from one token of a stream to the next, and from the request to the first.
        output_tokens: tokens of a stream.
        measured_s: how long requests are sent that count; those of one stream's length before them are warm-up.
    """

    streams: int
    gap_s: float
    output_tokens: int
    measured_s: float

    @property
    def stream_s(self) -> float:
        """How long one stream takes."""
        return self.gap_s * self.output_tokens

    @property
    def rate_per_s(self) -> float:
        """Requests per second that keep `streams` open."""
        return self.streams / self.stream_s


# Up to 2,500 tokens/s: more than the engines measured on one machine with the client give.
LOADS = (
    StreamLoad(streams=1, gap_s=0.01, output_tokens=8, measured_s=1.6),
    StreamLoad(streams=10, gap_s=0.01, output_tokens=10, measured_s=1.5),
    StreamLoad(streams=100, gap_s=0.05, output_tokens=16, measured_s=1.0),
    StreamLoad(streams=500, gap_s=0.2, output_tokens=6, measured_s=0.8),
)


async def measure_instrument(loads: Sequence[StreamLoad] = LOADS) -> Instrument:
    """Measure the load generator on this machine, now; the default loads take about 10 s.

    Raises:
        CheckFailedError: a request failed against a server that fails none, or that server did not start.
    """
    return Instrument(tuple([await _measure(load) for load in loads]))


@asynccontextmanager
async def paced_server(pace: Pace) -> AsyncIterator[str]:
    """Run a server of known timing in a process of its own; gives its base URL.

    Raises:
        CheckFailedError: it did not start.
    """
    options = {
        "--first-token-s": pace.first_token_s,
        "--gap-s": pace.gap_s,
        "--tokens-per-chunk": pace.tokens_per_chunk,
    }
    command = [sys.executable, "-m", "servepath.bench.paced_server"]
    command += [word for name, value in options.items() for word in (name, str(value))]
    async with await anyio.open_process(command, stdin=subprocess.PIPE, stderr=None) as process:
        try:
            yield f"http://127.0.0.1:{await _port_of(process)}"
        finally:
            with suppress(ProcessLookupError):
                process.terminate()


async def read_timings(base_url: str) -> dict[str, Timing]:
    """What the server did for each request since the last reading, by prompt."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(base_url + TIMINGS_PATH)
    return {one["prompt"]: Timing(**one) for one in answer.raise_for_status().json()}


def endpoint_of(base_url: str) -> Endpoint:
    """A paced server as an endpoint of the load generator."""
    return Endpoint(
        path=ServingPath.RAW,
        base_url=base_url,
        host="",
        model=MODEL,
        namespace="",
        workload="",
        modelcar_digest="",
        engine_image="",
        ready_s=0.0,
    )


async def _port_of(process: anyio.abc.Process) -> int:
    if process.stdout is None:
        raise CheckFailedError("the paced server has no standard output", where="instrument")
    try:
        with anyio.fail_after(START_TIMEOUT_S):
            line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", MAX_PORT_LINE_BYTES)
    except (TimeoutError, anyio.IncompleteRead, anyio.DelimiterNotFound) as error:
        raise CheckFailedError(
            "the paced server did not start", where=sys.executable, expected="its port on standard output"
        ) from error
    return int(line)


async def _measure(load: StreamLoad) -> InstrumentPoint:
    request_count = round(load.rate_per_s * (load.stream_s + load.measured_s))
    times_s = [index / load.rate_per_s for index in range(request_count)]
    slots = [Slot(OWN_PATH, 0, index, at_s, f"stream {index}") for index, at_s in enumerate(times_s)]
    plan = BenchPlan(output_tokens=load.output_tokens, rate_per_s=load.rate_per_s)
    async with (
        paced_server(Pace(first_token_s=load.gap_s, gap_s=load.gap_s)) as base_url,
        open_client(endpoint_of(base_url), plan) as client,
    ):
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        samples = await run_block(client, MODEL, slots, plan)
        wall_s, cpu_s = time.monotonic() - started_s, time.process_time() - started_cpu_s
        timings = await read_timings(base_url)
    _refuse_failures(samples)
    measured = [(one, timings[slot.prompt]) for one, slot in zip(samples, slots, strict=True)]
    measured = [(sample, timing) for sample, timing in measured if sample.intended_s >= load.stream_s]
    added = {
        metric: tuple(value for sample, timing in measured for value in overheads_s(metric, sample, timing))
        for metric in Metric
    }
    overheads = Overheads(
        ttft_s=added[Metric.TTFT],
        itl_s=added[Metric.ITL],
        e2e_s=added[Metric.E2E],
        cpu_s=cpu_s,
        wall_s=wall_s,
        token_count=sum(len(sample.token_times_s) for sample in samples),
    )
    return point_of(load.streams, overheads)


def point_of(streams: int, overheads: Overheads) -> InstrumentPoint:
    """The point that these values give."""
    return InstrumentPoint(
        streams=streams,
        request_count=len(overheads.e2e_s),
        ttft_overhead_p50_s=percentile(overheads.ttft_s, 50),
        ttft_overhead_p95_s=percentile(overheads.ttft_s, 95),
        itl_overhead_p95_s=percentile(overheads.itl_s, 95),
        e2e_overhead_p95_s=percentile(overheads.e2e_s, 95),
        cpu_share=overheads.cpu_s / overheads.wall_s,
        tokens_per_s=overheads.token_count / overheads.wall_s,
        overheads=overheads,
    )


def overheads_s(metric: Metric, sample: Sample, timing: Timing) -> tuple[float, ...]:
    """What the client added to each value of a metric: its own value minus the server's."""
    truth = {
        Metric.TTFT: [timing.chunk_times_s[0] - timing.received_s],
        Metric.ITL: [late - early for early, late in zip(timing.chunk_times_s, timing.chunk_times_s[1:], strict=False)],
        Metric.E2E: [timing.end_s - timing.received_s],
    }
    return tuple(
        round(seen - true, CLOCK_DIGITS) for seen, true in zip(sample.values_s(metric), truth[metric], strict=True)
    )


def _refuse_failures(samples: Sequence[Sample]) -> None:
    failed = [sample for sample in samples if not sample.ok]
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(samples)} requests failed ({failed[0].error}: {failed[0].error_detail})",
            where="the load generator against its own server",
            expected="no failure; is the number of open files limited (ulimit -n)?",
        )
