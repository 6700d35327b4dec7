"""A slowdown of 5% in real time: two servers of known timing in processes of their own, one 5% slower."""

from __future__ import annotations

import pytest

from servepath.bench.compare import compare
from servepath.bench.instrument import endpoint_of, paced_server
from servepath.bench.model import BenchPlan, Metric, Statistic
from servepath.bench.paced_server import Pace

GAP_S = 0.2
SLOWDOWN = 1.05


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_an_injected_slowdown_of_5_percent_is_found_and_its_size_known() -> None:
    plan = BenchPlan(
        blocks=8,
        requests_per_block=4,
        rate_per_s=40,
        output_tokens=5,
        warmup_requests=1,
        precision_percent=2.5,
        budget_s=60,
        max_lateness_p95_s=1.0,
        bootstrap_resamples=2_000,
    )
    async with (
        paced_server(Pace(first_token_s=GAP_S, gap_s=GAP_S)) as fast,
        paced_server(Pace(first_token_s=GAP_S * SLOWDOWN, gap_s=GAP_S * SLOWDOWN)) as slow,
    ):
        result = await compare({"raw": endpoint_of(fast), "kserve": endpoint_of(slow)}, plan)

    (e2e,) = [one for one in result.ratios if one.metric is Metric.E2E and one.statistic is Statistic.MEDIAN]
    if e2e.detectable_percent > 100 * (SLOWDOWN - 1):
        pytest.skip(f"this machine is too busy: a difference of {e2e.detectable_percent:.0f}% would have been found")
    assert e2e.low > 1, result.headline
    assert e2e.low < SLOWDOWN * 1.01
    assert e2e.high > SLOWDOWN * 0.99
    assert "blocks: medians known to" in result.stopped
    assert len(result.order) >= plan.blocks
    assert e2e.block_count == len(result.order)
