from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from servepath.bench.capacity import Load, Sweep, SweepDesign, SweepPoint
from servepath.bench.cost import cost_of
from servepath.bench.engine_metrics import read_waiting, waiting_of, watching
from servepath.bench.knee import analyse_sweep, bracket, gave_up, is_saturated, next_rate_per_s, point_of
from servepath.bench.load import open_client
from servepath.bench.model import Arrivals, BenchPlan, ErrorClass, Metric, Sample
from servepath.bench.slo import Slo, meets_objectives
from servepath.bench.stats import percentile
from servepath.bench.sweep import SweepProgress, request_count, sweep
from servepath.errors import UsageError
from tests.unit.bench.processes import endpoint_on, queue_server

if TYPE_CHECKING:
    from collections.abc import Sequence

SLO = Slo(ttft_p95_s=0.5, itl_p95_s=None, e2e_p95_s=None)
PLAN = BenchPlan(arrivals=Arrivals.POISSON, output_tokens=4, warmup_requests=1, max_lateness_p95_s=0.1)
SERVICE_S = 0.05


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def request(
    path: str, block: int, index: int, at_s: float, first_s: float, gap_s: float = 0.01, *, late_s: float = 0.0
) -> Sample:
    times_s = tuple(at_s + first_s + gap_s * token for token in range(4))
    return Sample(path, block, index, at_s, at_s + late_s, times_s, times_s[-1], 10, 4)


def load_of(block: int, rate_per_s: float, first_s: float, *, path: str = "raw", late_s: float = 0.0) -> list[Sample]:
    return [request(path, block, index, index / rate_per_s, first_s, late_s=late_s) for index in range(20)]


def points(*loads: tuple[float, float], late_s: float = 0.0) -> list[SweepPoint]:
    """Points of (rate, TTFT); the objective is half a second."""
    return [
        point_of(Load("raw", rate_per_s, block, None), load_of(block, rate_per_s, first_s, late_s=late_s), SLO, PLAN)
        for block, (rate_per_s, first_s) in enumerate(loads)
    ]


FAST, SLOW = 0.1, 0.9


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        ((), 0.25),
        (((0.25, FAST),), 0.5),
        (((0.25, FAST), (0.5, FAST)), 1.0),
        (((1.0, FAST), (2.0, SLOW)), 2.0),
        (((1.0, FAST), (2.0, SLOW), (2.0, SLOW)), 2**0.5),
        (((1.0, FAST), (2.0, SLOW), (2.0, FAST)), 1.0),
        (((1.0, FAST), (1.1, SLOW), (1.1, SLOW)), None),
        (((1.0, SLOW), (1.0, SLOW)), None),
    ],
)
def test_rates_double_to_the_first_confirmed_miss_and_then_close_in(
    seen: tuple[tuple[float, float], ...], wanted: float | None
) -> None:
    assert next_rate_per_s(points(*seen), SweepDesign()) == (pytest.approx(wanted) if wanted else None)


def test_given_rates_are_tried_in_their_order_and_no_more() -> None:
    design = SweepDesign(rates_per_s=(1, 3))
    assert [next_rate_per_s(points(*seen), design) for seen in ((), ((1, FAST),), ((1, FAST), (3, FAST)))] == [
        1,
        3,
        None,
    ]


def test_a_load_whose_client_was_late_shows_nothing_and_three_in_a_row_end_the_search() -> None:
    late = points((1, SLOW), late_s=0.3)

    assert bracket(late) == (None, None)
    assert not late[0].meets_slo
    assert next_rate_per_s(late, SweepDesign(rates_per_s=(1, 2))) == 1
    assert not gave_up(late * 2)
    assert gave_up(late * 3)
    assert next_rate_per_s(late * 3, SweepDesign()) is None


def test_knee_goodput_and_cost_follow_from_the_samples() -> None:
    fast, slow = load_of(0, 2, FAST), load_of(1, 4, SLOW)
    design = SweepDesign(usd_per_hour=3.6)
    result = analyse_sweep([*fast, *slow], [Load("raw", 2, 0, None), Load("raw", 4, 1, None)], SLO, PLAN, design)

    (knee,) = result.knees
    seconds = 19 / 2 + FAST + 0.03
    assert (knee.rate_per_s, knee.next_rate_per_s) == (2, 4)
    assert knee.goodput_requests_per_s == pytest.approx(20 / seconds)
    assert knee.output_tokens_per_s == pytest.approx(80 / seconds)
    assert knee.cost
    assert knee.cost.usd_per_1k_requests == pytest.approx(0.001 * 1000 / (20 / seconds))
    assert knee.cost.usd_per_1m_output_tokens == pytest.approx(0.001 * 1e6 / (80 / seconds))
    assert result.points[1].summary.goodput_requests_per_s == 0
    assert result.points[1].summary.completed_requests_per_s > 0
    assert again(result) == result


def again(result: Sweep) -> Sweep:
    loads = [point.load for point in result.points]
    return analyse_sweep(result.samples, loads, result.slo, result.plan, result.design, stopped=result.stopped)


def test_no_knee_has_no_price() -> None:
    result = analyse_sweep(
        load_of(0, 2, SLOW), [Load("raw", 2, 0, None)], SLO, PLAN, SweepDesign(usd_per_hour=1.0), stopped="enough"
    )
    (knee,) = result.knees
    assert (knee.rate_per_s, knee.next_rate_per_s, knee.cost) == (None, 2, None)
    assert cost_of(1.0, goodput_requests_per_s=0.0, output_tokens_per_s=5.0) is None


def test_a_request_counts_as_good_only_when_it_meets_every_objective() -> None:
    slo = Slo(ttft_p95_s=0.25, itl_p95_s=0.02, e2e_p95_s=1.5)
    good = request("raw", 0, 0, 0.0, 0.2)

    assert meets_objectives(good, slo)
    assert not meets_objectives(request("raw", 0, 0, 0.0, 0.3), slo)
    assert not meets_objectives(request("raw", 0, 0, 0.0, 0.2, gap_s=0.03), slo)
    assert not meets_objectives(request("raw", 0, 0, 0.0, 0.2), Slo(None, None, 0.2))
    assert meets_objectives(request("raw", 0, 0, 0.0, 9.9), Slo(None, None, None))
    failed = Sample("raw", 0, 0, 0.0, 0.0, good.token_times_s, 0.3, error=ErrorClass.TRUNCATED)
    assert not meets_objectives(failed, Slo(None, None, None))


@pytest.mark.parametrize(
    ("waiting", "saturated"),
    [
        (None, False),
        ((), False),
        ((9.0, 9.0, 9.0), False),
        ((0.0, 0.0, 1.0, 3.0), True),
        ((5.0, 5.0, 0.0, 5.0), False),
    ],
)
def test_saturation_is_a_queue_that_never_emptied_again(waiting: tuple[float, ...] | None, *, saturated: bool) -> None:
    assert is_saturated(waiting) is saturated


def test_waiting_requests_are_summed_over_engines_and_nothing_else_is_taken_for_them() -> None:
    text = (
        "# HELP vllm:num_requests_waiting Number of requests waiting\n"
        'vllm:num_requests_waiting{engine="0",model_name="m"} 3.0\n'
        'vllm:num_requests_waiting{engine="1",model_name="m"} 4.0\n'
        'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0\n'
        "vllm:num_requests_running 7.0\n"
    )
    assert waiting_of(text) == 7
    assert waiting_of("vllm:num_requests_waiting 2.0\n") == 2
    assert waiting_of("vllm:num_requests_running 7.0\n") is None


@pytest.mark.anyio
async def test_an_engine_without_metrics_says_nothing_of_its_queue() -> None:
    with queue_server(0.01, "--without-metrics") as endpoint, queue_server(0.01) as with_metrics:
        async with open_client(endpoint, PLAN) as silent, open_client(with_metrics, PLAN) as telling:
            assert await read_waiting(silent) is None
            assert await read_waiting(telling) == 0
            async with watching(silent, 0.1) as readings:
                pass
            assert readings == []
    async with open_client(endpoint, PLAN) as gone:
        assert await read_waiting(gone) is None


def queueing_p95_s(arrivals_s: Sequence[float], service_s: float) -> float:
    """TTFT p95 of a server that serves one after the other, by Lindley's recursion; tokens are a quarter apart."""
    free_at_s = 0.0
    waits_s = []
    for arrival_s in arrivals_s:
        start_s = max(arrival_s, free_at_s)
        waits_s.append(start_s - arrival_s + service_s / 4)
        free_at_s = start_s + service_s
    return percentile(waits_s, 95)


@pytest.mark.anyio
async def test_the_knee_of_a_server_of_known_capacity_is_found() -> None:
    seen: list[SweepProgress] = []
    design = SweepDesign(rates_per_s=(6, 12, 24), load_s=5, precision_percent=25, budget_s=120, usd_per_hour=1.0)
    with queue_server(SERVICE_S) as endpoint:
        result = await sweep({"raw": endpoint}, PLAN, SLO, design, seen.append)
    if any(gave_up(result.points[: end + 1]) for end in range(len(result.points))):
        pytest.skip(f"this machine is too busy to measure: {result.stopped}")

    excess_s = []
    for point in result.points:
        own = [sample for sample in result.samples if sample.block == point.block]
        assert len(own) == request_count(point.rate_per_s, design)
        foreseen_s = queueing_p95_s([sample.intended_s for sample in own], SERVICE_S)
        ttft = point.summary.latency(Metric.TTFT)
        assert ttft
        assert ttft.p95_s >= foreseen_s - 0.005
        excess_s.append(ttft.p95_s - foreseen_s)
    assert [progress.point for progress in seen] == list(result.points)
    assert again(result) == result
    if max(excess_s) > 0.1:
        pytest.skip(f"this machine is too busy to measure: requests waited {max(excess_s):.2f} s for their process")

    (knee,) = result.knees
    capacity_per_s = 1 / SERVICE_S
    assert knee.rate_per_s
    assert knee.next_rate_per_s
    assert 0.6 * capacity_per_s <= knee.rate_per_s <= 1.2 * capacity_per_s
    assert knee.next_rate_per_s <= 1.25 * capacity_per_s
    assert knee.goodput_requests_per_s <= 1.05 * capacity_per_s
    assert all(point.saturated for point in result.points if point.rate_per_s > 1.15 * capacity_per_s)
    assert not any(point.saturated for point in result.points if point.rate_per_s < 0.7 * capacity_per_s)


@pytest.mark.anyio
async def test_paths_are_interleaved_at_each_rate() -> None:
    design = SweepDesign(rates_per_s=(50, 100, 200), load_s=0.2, budget_s=60)
    with queue_server(0.0001) as raw, queue_server(0.0001, "--without-metrics") as kserve:
        plan = BenchPlan(output_tokens=2, max_lateness_p95_s=1.0)
        result = await sweep({"raw": raw, "kserve": kserve}, plan, Slo(9, 9, 9), design)
        by_engine = await sweep(
            {"kserve": kserve}, plan, Slo(9, 9, 9), replace(design, rates_per_s=(50,)), engines={"kserve": raw}
        )

    for rate_per_s in (50, 100):
        assert {point.path for point in result.points if point.rate_per_s == rate_per_s} == {"raw", "kserve"}
    assert len({point.block for point in result.points}) == len(result.points)
    assert [point.load.path for point in result.points[:2]] != [point.load.path for point in result.points[1:3]]
    assert result.stopped
    assert all(point.waiting_max is None for point in result.points if point.path == "kserve")
    assert all(point.waiting_max == 0 for point in by_engine.points)


@pytest.mark.anyio
async def test_a_sweep_without_objectives_or_endpoints_is_refused() -> None:
    with pytest.raises(UsageError, match="no objective"):
        await sweep({"raw": endpoint_on(9)}, PLAN, Slo(None, None, None, None))
    with pytest.raises(UsageError, match="no endpoint"):
        await sweep({}, PLAN, Slo())
    with pytest.raises(UsageError, match="closed loop"):
        await sweep({"raw": endpoint_on(9)}, BenchPlan(arrivals=Arrivals.CLOSED), Slo())


@pytest.mark.anyio
async def test_a_sweep_ends_when_its_time_is_spent() -> None:
    design = SweepDesign(rates_per_s=(50, 100, 200), load_s=1, budget_s=1.5)
    with queue_server(0.0001) as raw:
        result = await sweep({"raw": raw}, BenchPlan(output_tokens=2, max_lateness_p95_s=9), Slo(9, 9, 9), design)

    assert len(result.points) == 1
    assert result.stopped == "no further rate of raw fits into the time of 1.5 s"


@pytest.mark.parametrize("bad", [{"rates_per_s": (2, 1)}, {"rates_per_s": (0,)}, {"load_s": 0}, {"usd_per_hour": -1}])
def test_a_design_that_cannot_be_carried_out_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="sweep design"):
        SweepDesign(**bad)  # type: ignore[arg-type]
