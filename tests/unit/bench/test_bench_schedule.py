from __future__ import annotations

import numpy as np
import pytest

from servepath.bench.model import Arrivals, BenchPlan
from servepath.bench.schedule import arrival_times_s


def test_a_burst_schedule_sends_groups_at_once_at_the_mean_rate_asked_for() -> None:
    plan = BenchPlan(requests_per_block=8, rate_per_s=2, arrivals=Arrivals.BURST, burst_size=3)

    assert arrival_times_s(plan, 0) == pytest.approx((0, 0, 0, 1.5, 1.5, 1.5, 3, 3))


def test_a_burst_of_one_is_a_constant_schedule() -> None:
    plan = BenchPlan(requests_per_block=5, rate_per_s=4, arrivals=Arrivals.BURST, burst_size=1)

    assert arrival_times_s(plan, 0) == pytest.approx((0, 0.25, 0.5, 0.75, 1))


def test_a_closed_loop_has_no_intended_times() -> None:
    plan = BenchPlan(requests_per_block=3, arrivals=Arrivals.CLOSED)

    assert arrival_times_s(plan, 0) == (0, 0, 0)


@pytest.mark.parametrize("arrivals", list(Arrivals))
def test_every_schedule_is_ascending_from_0_and_the_same_each_time(arrivals: Arrivals) -> None:
    plan = BenchPlan(requests_per_block=50, rate_per_s=10, arrivals=arrivals)
    times_s = arrival_times_s(plan, 1)

    assert times_s == arrival_times_s(plan, 1)
    assert len(times_s) == 50
    assert times_s[0] == 0
    assert np.diff(times_s).min() >= 0
