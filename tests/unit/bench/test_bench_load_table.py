from __future__ import annotations

from pathlib import Path

import pytest

from ci.load_bench.experiment import Bench, Client, Run, Seen, rounds_of
from ci.load_bench.guidellm import Shape
from ci.load_bench.table import table
from servepath.bench.paced_server import Pace

BENCH = Bench(Pace(0.1, 0.02), Shape(64, 1200, 64, 32), 200, 2, 42, Path("python"), Path("model"), Path("work"))


def run(client: Client, number: int, requests: int, cpu_s: float, added_s: float) -> Run:
    return Run(client, number, requests, cpu_s, 10.0, (Seen(1.0, added_s, 2 * added_s),) * requests)


RUNS = (
    run(Client.SERVEPATH, 1, 1200, 3.0, 0.001),
    run(Client.GUIDELLM, 1, 200, 40.0, 0.01),
    run(Client.GUIDELLM, 1, 1200, 60.0, 0.01),
    run(Client.SERVEPATH, 1, 200, 1.0, 0.001),
    run(Client.SERVEPATH, 2, 200, 1.0, 0.001),
    run(Client.SERVEPATH, 2, 1200, 2.0, 0.001),
    run(Client.GUIDELLM, 2, 1200, 62.0, 0.01),
    run(Client.GUIDELLM, 2, 200, 40.0, 0.01),
)


def test_the_cost_of_a_request_leaves_out_the_start() -> None:
    first, second = rounds_of(RUNS, Client.SERVEPATH)

    assert first.cpu_s_per_request == pytest.approx(0.002)
    assert second.cpu_s_per_request == pytest.approx(0.001)
    assert first.many.latency_share == pytest.approx(0.002)


def test_the_table_gives_the_median_and_the_range_of_the_paired_ratios() -> None:
    text = table(BENCH, RUNS)

    assert "| requests per CPU second, start excluded | 750 | 48 | 16.00 (10.00-22.00) |" in text
    assert "| added to TTFT, p50 (ms) | 1.00 | 10.00 | 0.10 (0.10-0.10) |" in text
    assert "at most 2844 tokens/s" in text
