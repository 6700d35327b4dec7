from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import pytest

from ci.load_bench import watched
from ci.load_bench.experiment import Bench, Client, Run, Seen
from ci.load_bench.guidellm import Shape
from ci.load_bench.table import table
from ci.load_bench.watched import Watched
from servepath.bench.paced_server import Pace
from servepath.errors import CheckFailedError

BENCH = Bench(Pace(0.1, 0.02), Shape(64, 1200, 64, 32), 2, 42, Path("python"), Path("model"), Path("work"))


def run(client: Client, number: int, cpu_s: float, added_s: float) -> Run:
    return Run(client, number, 12.0, cpu_s, 20.0, 2 * cpu_s, (Seen(1.0, added_s, 2 * added_s),) * 1200)


RUNS = (
    run(Client.SERVEPATH, 1, 3.0, 0.001),
    run(Client.GUIDELLM, 1, 30.0, 0.01),
    run(Client.GUIDELLM, 2, 40.0, 0.01),
    run(Client.SERVEPATH, 2, 2.0, 0.001),
)


def test_the_table_gives_the_median_and_the_range_of_the_paired_ratios() -> None:
    text = table(BENCH, RUNS)

    assert "| requests per CPU second, while loading | 500 | 35 | 15.00 (10.00-20.00) |" in text
    assert "| requests per CPU second, whole process | 250.0 | 17.5 | 15.00 (10.00-20.00) |" in text
    assert "| added to TTFT, p50 (ms) | 1.00 | 10.00 | 0.10 (0.10-0.10) |" in text
    assert "| added, share of the measured E2E (%) | 0.2 | 2.0 | 0.10 (0.10-0.10) |" in text
    assert "at most 2844 tokens/s" in text


def test_cpu_time_between_two_moments_is_interpolated() -> None:
    done = Watched(5.0, 4.0, ((10.0, 0.0), (11.0, 2.0), (13.0, 4.0)))

    assert done.cpu_between_s(10.5, 12.0) == pytest.approx(2.0)
    assert done.cpu_between_s(0.0, 99.0) == pytest.approx(4.0)


SPIN = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass\n"
SPIN_IN_A_CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {SPIN!r}])"


@pytest.mark.parametrize("program", [SPIN, SPIN_IN_A_CHILD])
def test_the_cpu_time_of_a_program_and_of_its_children_is_seen_while_it_runs(program: str, tmp_path: Path) -> None:
    done = anyio.run(watched.run, [sys.executable, "-c", program], dict(os.environ), tmp_path / "log")

    assert 0.55 < done.cpu_s < 2
    (start_s, _), *_, (end_s, _) = done.readings
    assert done.cpu_between_s(start_s, end_s) == pytest.approx(done.cpu_s)
    assert max(cpu_s for _, cpu_s in done.readings[:-1]) > 0.2


def test_a_program_that_fails_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match="status 3: gone"):
        anyio.run(watched.run, ["sh", "-c", "echo gone; exit 3"], dict(os.environ), tmp_path / "log")
