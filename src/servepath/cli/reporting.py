"""The report of a single stage: what `smoke` or `bench` learnt, in the same files as a whole run's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from servepath.cli.defaults import run_info
from servepath.cli.output import console_line
from servepath.e2e import exit_code_of
from servepath.report.model import Report
from servepath.report.write import write_report

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.bench.model import Comparison
    from servepath.cluster.model import Cluster
    from servepath.evidence import CheckResult
    from servepath.serving.model import Endpoint


def finish(
    directory: Path,
    cluster: Cluster,
    deployments: tuple[Endpoint, ...],
    *,
    checks: tuple[CheckResult, ...] = (),
    comparison: Comparison | None = None,
) -> None:
    """Write the report of one stage and end with its exit code.

    Raises:
        typer.Exit: the verdict is `fail`.
        InputError: the directory cannot be written.
    """
    report = Report(run_info(), cluster=cluster, deployments=deployments, checks=checks, comparison=comparison)
    write_report(report, directory)
    console_line(f"{report.verdict}: {directory}/report.html")
    if code := exit_code_of(report):
        raise typer.Exit(code)
