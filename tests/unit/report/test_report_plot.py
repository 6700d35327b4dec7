from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servepath.report.format import count, duration, fact, latency, objective_value, percent, short_digest, size
from servepath.report.plot import RatioRow, Series, block_plot, cumulative_plot, ratio_plot
from servepath.report.svg import TOP, WIDTH, nice_ticks

VALUES = st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=30)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_the_values_and_are_few(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    slack = 1e-6 * max(abs(low), abs(low + span), 1)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= 7
    assert ticks == sorted(set(ticks))


def test_ticks_are_round() -> None:
    assert nice_ticks(0, 97) == [0, 25, 50, 75, 100]
    assert nice_ticks(0.93, 1.12) == pytest.approx([0.9, 0.95, 1.0, 1.05, 1.1, 1.15])


def points_of(svg: str) -> list[float]:
    return [float(number) for number in re.findall(r'c[xy]="([-\d.]+)"', svg)]


@given(VALUES, VALUES)
def test_plots_of_any_values_are_xml_and_stay_inside(first: list[float], second: list[float]) -> None:
    series = [Series("raw", tuple(first)), Series("kserve", (*second, math.nan))]
    for svg in (
        cumulative_plot("t", [series[0], Series("kserve", tuple(second))], "ms"),
        block_plot("t", series, "ms"),
    ):
        ET.fromstring(svg)  # noqa: S314
        assert "nan" not in svg
        assert all(-1 <= value <= WIDTH + 1 for value in points_of(svg))


def test_a_cumulative_line_ends_at_the_top_after_as_many_steps_as_values() -> None:
    svg = cumulative_plot("t", [Series("raw", (1.0, 2.0, 3.0, 4.0))], "ms")
    (path,) = re.findall(r'class="line s0" d="([^"]+)"', svg)
    heights = [float(value) for value in re.findall(r"V([\d.]+)", path)]
    assert len(heights) == 4
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] == TOP


def test_a_ratio_row_shows_its_interval_where_it_belongs() -> None:
    svg = ratio_plot(
        "t", [RatioRow("E2E", "1.10", 1.10, 1.05, 1.15, (1.0, 1.2))], number=1, faster="faster", slower="slower"
    )
    (low, high) = map(float, *re.findall(r'class="interval s1" d="M([\d.]+) [\d.]+H([\d.]+)', svg))
    (even,) = map(float, re.findall(r'class="even" d="M([\d.]+) ', svg))
    (estimate,) = map(float, re.findall(r'class="estimate s1" cx="([\d.]+)"', svg))
    assert even < low < estimate < high
    assert estimate == pytest.approx((low + high) / 2, abs=0.1)
    assert svg.count('class="block"') == 2


def test_text_in_a_plot_is_escaped() -> None:
    svg = ratio_plot('<&"', [RatioRow("<b>", "&", 1, 0.9, 1.1, ())], number=1, faster="<", slower=">")
    ET.fromstring(svg)  # noqa: S314
    assert "<b>" not in svg


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (duration(0.02), "20 ms"),
        (duration(71.3), "71.3 s"),
        (duration(245), "4 min 05 s"),
        (latency(0.00321), "3.21 ms"),
        (latency(0.0543), "54.3 ms"),
        (latency(0.758), "758 ms"),
        (latency(2.413), "2.41 s"),
        (size(0), "0 B"),
        (size(272_629_760), "260.0 MiB"),
        (size(8 << 30), "8.0 GiB"),
        (count(134_515_008), "134.5 M"),
        (percent(0.969), "−3.1%"),  # noqa: RUF001
        (short_digest("a/b@sha256:" + "c" * 64), "a/b@sha256:cccccccccccc"),
        (short_digest("latest"), "latest"),
        (objective_value("error_rate", 0.25), "25.0%"),
        (objective_value("ttft_p95_s", None), "not measured"),
        (fact("memory_bytes", 1024), "1.0 KiB"),
    ],
)
def test_numbers_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected
