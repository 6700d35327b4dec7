"""GuideLLM and servepath on one server of known timing: the same metrics, defined the same or knowingly not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from ci.load_bench import guidellm, ours
from ci.load_bench.agreement import agreement
from ci.load_bench.guidellm import GuidellmResult, Shape
from ci.node.layout import from_environment
from ci.node.tiny_model import write_tiny_model
from servepath.bench.analysis import summarise
from servepath.bench.instrument import paced_server, read_timings
from servepath.bench.model import Metric, Sample
from servepath.bench.paced_server import Pace, Timing
from servepath.bench.stats import percentile

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.guidellm
FIRST_TOKEN_S, GAP_S = 0.1, 0.03
SHAPE = Shape(users=2, requests=24, prompt_tokens=32, output_tokens=10)
RATE_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Both:
    """What both clients saw of one server, and what it did for each of their requests."""

    samples: tuple[tuple[Sample, Timing], ...]
    theirs: GuidellmResult
    their_timings: tuple[Timing, ...]


async def measure_both(pace: Pace, folder: Path) -> Both:
    python = guidellm.environment_of(from_environment().cache) / "bin" / "python"
    await anyio.to_thread.run_sync(write_tiny_model, folder)
    async with paced_server(pace) as url:
        theirs = await guidellm.measure(python, url, SHAPE, folder)
        their_timings = await read_timings(url)
        samples, prompts = await ours.measure(url, SHAPE, folder / "tokenizer.json")
        timings = await read_timings(url)
    pairs = tuple((sample, timings[prompt]) for sample, prompt in zip(samples, prompts, strict=True))
    return Both(pairs, theirs, tuple(their_timings[one.prompt] for one in theirs.requests))


@pytest.fixture(scope="module")
def _installed() -> None:
    if not guidellm.environment_of(from_environment().cache).is_dir():
        pytest.skip("GuideLLM is not installed: python -m ci.load_bench install")


@pytest.fixture(scope="module")
def both(_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Both:
    pace = Pace(FIRST_TOKEN_S, GAP_S)
    return anyio.run(partial(measure_both, pace, tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def both_with_four_tokens_per_chunk(_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Both:
    pace = Pace(FIRST_TOKEN_S, GAP_S, tokens_per_chunk=4)
    return anyio.run(partial(measure_both, pace, tmp_path_factory.mktemp("model")))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def true_ttft_s(timing: Timing) -> float:
    return timing.chunk_times_s[0] - timing.received_s


def true_itl_s(timing: Timing) -> float:
    return (timing.chunk_times_s[-1] - timing.chunk_times_s[0]) / (len(timing.chunk_times_s) - 1)


def true_e2e_s(timing: Timing) -> float:
    return timing.end_s - timing.received_s


def added_ttft_s(both: Both) -> tuple[list[float], list[float]]:
    """What each client added to the time of the first token."""
    theirs = zip(both.theirs.requests, both.their_timings, strict=True)
    return (
        [sample.values_s(Metric.TTFT)[0] - true_ttft_s(timing) for sample, timing in both.samples],
        [request.ttft_s - true_ttft_s(timing) for request, timing in theirs],
    )


def test_both_see_every_request_succeed_with_the_same_tokens(both: Both) -> None:
    assert all(sample.ok for sample, _ in both.samples)
    assert both.theirs.failed_count == 0
    assert {(sample.completion_tokens, len(sample.token_times_s)) for sample, _ in both.samples} == {(10, 10)}
    assert {(one.output_tokens, one.chunk_count) for one in both.theirs.requests} == {(10, 10)}


def test_the_time_to_the_first_token_agrees(both: Both) -> None:
    ours_s, theirs_s = added_ttft_s(both)
    found = agreement("ttft", ours_s, theirs_s)

    assert min(ours_s) > 0
    assert min(theirs_s) > -0.001  # GuideLLM's clock is the wall clock
    assert found.holds, found


def test_a_first_token_counted_from_the_role_chunk_would_be_found(both: Both) -> None:
    ours_s, theirs_s = added_ttft_s(both)

    assert not agreement("ttft", [value - FIRST_TOKEN_S for value in ours_s], theirs_s).holds


def test_the_inter_token_latency_agrees_as_a_mean_per_request(both: Both) -> None:
    ours_s = [mean(list(sample.values_s(Metric.ITL))) - true_itl_s(timing) for sample, timing in both.samples]
    theirs = zip(both.theirs.requests, both.their_timings, strict=True)
    found = agreement("itl", ours_s, [request.itl_s - true_itl_s(timing) for request, timing in theirs])

    assert found.holds, found
    assert abs(found.ours_p50_s) < GAP_S / 10


def test_the_end_to_end_latency_agrees(both: Both) -> None:
    ours_s = [sample.values_s(Metric.E2E)[0] - true_e2e_s(timing) for sample, timing in both.samples]
    theirs = zip(both.theirs.requests, both.their_timings, strict=True)
    found = agreement("e2e", ours_s, [request.e2e_s - true_e2e_s(timing) for request, timing in theirs])

    assert found.holds, found


def test_throughput_is_what_the_server_did_between_the_first_request_and_the_last_end(both: Both) -> None:
    def true_rate(timings: list[Timing]) -> float:
        tokens = sum(len(timing.chunk_times_s) for timing in timings)
        return tokens / (max(one.end_s for one in timings) - min(one.received_s for one in timings))

    summary = summarise("ours", [sample for sample, _ in both.samples])
    ours_true, theirs_true = true_rate([timing for _, timing in both.samples]), true_rate(list(both.their_timings))

    assert summary.output_tokens_per_s == pytest.approx(ours_true, rel=RATE_TOLERANCE)
    assert both.theirs.output_tokens_per_s == pytest.approx(theirs_true, rel=RATE_TOLERANCE)
    assert summary.request_count / summary.loaded_s == pytest.approx(ours_true / 10, rel=RATE_TOLERANCE)
    assert both.theirs.requests_per_s == pytest.approx(theirs_true / 10, rel=RATE_TOLERANCE)


def test_with_several_tokens_in_a_chunk_both_notice_and_itl_is_defined_differently(
    both_with_four_tokens_per_chunk: Both,
) -> None:
    both = both_with_four_tokens_per_chunk

    assert {(sample.completion_tokens, len(sample.token_times_s)) for sample, _ in both.samples} == {(10, 3)}
    assert {(one.output_tokens, one.chunk_count) for one in both.theirs.requests} == {(10, 3)}
    # Ours is the gap between chunks; GuideLLM divides the time from the first chunk to the last by the tokens less one.
    ours_s = [mean(list(sample.values_s(Metric.ITL))) / true_itl_s(timing) for sample, timing in both.samples]
    theirs = zip(both.theirs.requests, both.their_timings, strict=True)
    assert percentile(ours_s, 50) == pytest.approx(1, rel=0.2)
    assert percentile([one.itl_s / true_itl_s(timing) for one, timing in theirs], 50) == pytest.approx(2 / 9, rel=0.2)
