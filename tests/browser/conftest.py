from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from servepath.bench.model import BenchPlan
from servepath.bench.regression import Gate
from servepath.cli.report import compare
from servepath.report.model import Report
from servepath.report.write import HTML_FILE, write_report
from tests.browser.browsing import TIMEOUT_MS
from tests.unit.report.example_runs import RUN, comparison, failed_run, full_run, passed_run, stopped_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

ARTEFACTS = Path(__file__).parents[2] / "build" / "screenshots"
RUNS: dict[str, Callable[[], Report]] = {
    "full": full_run,
    "passed": passed_run,
    "failed": failed_run,
    "stopped": stopped_run,
    "empty": lambda: Report(RUN),  # nothing was learnt
}
PAGES = (*RUNS, "regression")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; Playwright brings only the driver."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not there: python -m ci.node prepare")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, timeout=TIMEOUT_MS, args=["--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of each example run."""
    written = {}
    for name, run in RUNS.items():
        directory = tmp_path_factory.mktemp(name)
        write_report(run(), directory)
        written[name] = directory / HTML_FILE
    written["regression"] = write_two_runs(tmp_path_factory.mktemp("regression"))
    return written


def write_two_runs(root: Path) -> Path:
    """Write the page of two runs, the second one slower."""
    plan = BenchPlan(blocks=16, requests_per_block=3, bootstrap_resamples=200)
    for name, slowdown, seed in (("before", 1.0, 1), ("after", 1.25, 2)):
        measured = comparison(slowdown, plan=replace(plan, seed=seed))
        write_report(replace(passed_run(), comparison=measured), root / name)
    compare(root / "before", root / "after", Gate(), anyway=False, output=root)
    return root / "regression.html"


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots are kept, for a person to look at."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    return ARTEFACTS
