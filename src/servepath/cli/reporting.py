"""The report of a single stage: what `smoke` or `bench` learnt, in the same files as a whole run's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import typer

from servepath.cli.output import console_line
from servepath.cli.run_info import run_info
from servepath.e2e import begin_report, exit_code_of, reporting
from servepath.report.model import Report
from servepath.report.write import write_report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from servepath.bench.capacity import Sweep
    from servepath.bench.model import Comparison
    from servepath.canary.model import CanaryResult
    from servepath.cluster.model import Cluster
    from servepath.evidence import CheckResult
    from servepath.serving.model import Endpoint


@asynccontextmanager
async def stage_report(directory: Path | None) -> AsyncIterator[None]:
    """Find out whether the report can be written before there is anything to write, and report an error of the block.

    Raises:
        InputError: the directory cannot be written.
    """
    if directory is None:
        yield
        return
    info = run_info()
    await anyio.to_thread.run_sync(begin_report, info, directory)
    async with reporting(info, directory):
        yield


def finish(
    directory: Path | None,
    cluster: Cluster,
    deployments: tuple[Endpoint, ...],
    *,
    checks: tuple[CheckResult, ...] = (),
    comparison: Comparison | None = None,
    sweep: Sweep | None = None,
    canary: CanaryResult | None = None,
) -> None:
    """Write the report of one stage, if one is wanted, and end with the exit code of what it found.

    Raises:
        typer.Exit: the verdict is `fail`.
        InputError: the directory cannot be written.
    """
    report = Report(
        run_info(),
        cluster=cluster,
        deployments=deployments,
        checks=checks,
        comparison=comparison,
        sweep=sweep,
        canary=canary,
    )
    if directory is not None:
        write_report(report, directory)
        console_line(f"{report.verdict}: {directory}/report.html")
    if code := exit_code_of(report):
        raise typer.Exit(code)
