"""`servepath`: one command per stage, each usable alone."""

from __future__ import annotations

import typer

from servepath.cli.cluster import cluster_command, platform_command
from servepath.cli.e2e import e2e_command
from servepath.cli.lifecycle import start_command, stop_command
from servepath.cli.modelcar import modelcar_command
from servepath.cli.report import report_command
from servepath.cli.running import run_app
from servepath.cli.serving import bench_command, delete_command, deploy_command, smoke_command

HELP = """Does my model serve, how fast, and what does KServe cost and give over a raw Deployment?

The stages run in this order, each alone or all of them by `servepath e2e`:
modelcar, cluster, platform, deploy, smoke, bench, report.

Exit codes: 0 pass, 2 usage, 3 input, 4 registry, 5 cluster, 6 check failed, 7 SLO missed, 130 interrupted.
"""

app = typer.Typer(
    name="servepath",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("modelcar")(modelcar_command)
app.command("cluster")(cluster_command)
app.command("platform")(platform_command)
app.command("deploy")(deploy_command)
app.command("delete")(delete_command)
app.command("stop")(stop_command)
app.command("start")(start_command)
app.command("smoke")(smoke_command)
app.command("bench")(bench_command)
app.command("report")(report_command)
app.command("e2e")(e2e_command)


def main() -> None:
    """Run the command line."""
    run_app(app)
