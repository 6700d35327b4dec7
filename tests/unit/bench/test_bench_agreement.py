from __future__ import annotations

import pytest

from ci.load_bench.agreement import agreement
from ci.load_bench.guidellm import read_result
from servepath.errors import CheckFailedError

QUIET_S = [0.0010, 0.0011, 0.0012, 0.0013, 0.0014]


def test_values_that_differ_less_than_their_spread_agree() -> None:
    found = agreement("ttft", QUIET_S, [value + 0.002 for value in QUIET_S])

    assert found.holds
    assert (found.ours_p50_s, found.theirs_p50_s) == pytest.approx((0.0012, 0.0032))
    assert found.noise_s == pytest.approx(0.0022)


@pytest.mark.parametrize("shift_s", [0.0025, -0.0025, 0.1])
def test_a_shift_beyond_the_noise_is_found(shift_s: float) -> None:
    assert not agreement("ttft", QUIET_S, [value + shift_s for value in QUIET_S]).holds


def test_another_form_of_guidellms_result_is_refused() -> None:
    with pytest.raises(CheckFailedError, match=r"no 'metrics'.*0\.8\.1"):
        read_result({"benchmarks": [{"requests": {}}]})
