"""`servepath`: one command per stage, each usable alone."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING

import typer
import typer.core
import typer.main

from servepath.cli.running import run_app

if TYPE_CHECKING:
    from typer._click.core import Command, Context

HELP = """Does my model serve, how fast, and what does KServe cost and give over a raw Deployment?

The stages run in this order, each alone or all of them by `servepath e2e`:
modelcar, cluster, platform, deploy, smoke, bench, report.
A digest that passed goes on by `servepath promote`, or on one cluster by `servepath canary`.

Exit codes: 0 pass, 2 usage, 3 input, 4 registry, 5 cluster, 6 check failed, 7 SLO missed, 8 refused, 9 rolled back,
130 interrupted.
"""

COMMANDS = {
    "modelcar": "servepath.cli.modelcar:modelcar_command",
    "verify": "servepath.cli.images:verify_command",
    "copy": "servepath.cli.images:copy_command",
    "cluster": "servepath.cli.cluster:cluster_command",
    "platform": "servepath.cli.cluster:platform_command",
    "deploy": "servepath.cli.serving:deploy_command",
    "delete": "servepath.cli.serving:delete_command",
    "stop": "servepath.cli.lifecycle:stop_command",
    "start": "servepath.cli.lifecycle:start_command",
    "smoke": "servepath.cli.serving:smoke_command",
    "bench": "servepath.cli.serving:bench_command",
    "canary": "servepath.cli.canary:canary_command",
    "sweep": "servepath.cli.sweep:sweep_command",
    "lifecycle": "servepath.cli.lifecycle:lifecycle_command",
    "report": "servepath.cli.report:report_command",
    "e2e": "servepath.cli.e2e:e2e_command",
    "mirror": "servepath.cli.mirror:mirror_command",
    "preflight": "servepath.cli.preflight:preflight_command",
    "promote": "servepath.cli.promotion:promote_command",
    "history": "servepath.cli.history:history_command",
    "rollback": "servepath.cli.promotion:rollback_command",
}
"""Every command and where its function is, in the order of the help."""


class Commands(typer.core.TyperGroup):
    """Imports a command when it is asked for.

    A push needs neither numpy nor a Kubernetes client: with all commands imported it began after 1.05 s instead of
    0.14 s of CPU time and held 69 MB instead of 28 MB (measured around `import_module` of one command, and of all).
    """

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:  # noqa: ARG002
        """Import one command, None if there is none of the name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        single = _typer()
        single.command(cmd_name)(getattr(import_module(module), function))
        gc.freeze()  # what was imported stays; to look for garbage in it at the end is 6% of a push without changes
        return typer.main.get_command(single)


def _typer(cls: type[typer.core.TyperGroup] | None = None) -> typer.Typer:
    return typer.Typer(
        name="servepath",
        cls=cls,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


app = _typer(Commands)


@app.callback(help=HELP)
def servepath() -> None:
    """Everything is in the commands."""


def main() -> None:
    """Run the command line."""
    run_app(app)
