"""`python -m ci.node`: prepare, start, enter and end the embedded node."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from ci.node import holder, kubernetes, node, packages, preflight, programs
from ci.node.e2e import INNER_COMMAND
from ci.node.e2e_command import e2e_command, inside_command
from ci.node.layout import Layout, from_environment
from ci.node.prepared import prepare_tests
from servepath.cli.output import stderr_console
from servepath.cli.progress import show_stages
from servepath.cli.running import run as run_command
from servepath.cli.running import run_app
from servepath.errors import ClusterError, UsageError
from servepath.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ci.node.holder import Holder

app = typer.Typer(
    help="The embedded node: a whole Kubernetes on this machine, without a container engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
TestArguments = Annotated[list[str], typer.Argument(help="Arguments of pytest, after `--` if they are options.")]
Command = Annotated[list[str], typer.Argument(help="The command and its arguments, after `--`.")]


async def prepare(layout: Layout) -> Path:
    """Do what needs the network: install packages and build programs. Returns the Kubernetes programs' folder.

    Raises:
        ClusterError: the machine will not do, or apt or Go failed.
    """
    preflight.check(preflight.observe(layout))
    await packages.install()
    return await programs.build(kubernetes.KUBERNETES, layout.cache)


@app.command(name="prepare")
def prepare_command() -> None:
    """Install packages and build programs: all that the tests need of a network, once."""

    async def work() -> None:
        with show_stages(stderr_console()) as observer:
            await prepare_tests(from_environment(), Stages(observer, time.time()))

    run_command(work)


@app.command()
def up() -> None:
    """Start a node that stays up until `down`."""

    async def work() -> int:
        layout = from_environment()
        kubernetes_programs = await prepare(layout)
        running = await holder.start(layout)
        status = 1
        try:
            start_node = [sys.executable, "-m", "ci.node", "start-inside", str(kubernetes_programs)]
            status = await _run_inside(layout, running, start_node, kubernetes_programs)
        finally:
            if status:
                with anyio.CancelScope(shield=True):
                    await holder.give_up(layout, running)
        return status

    raise typer.Exit(run_command(work))


@app.command(hidden=True)
def start_inside(kubernetes_programs: Path) -> None:
    """Start the node's programs in the holder that this process is in."""

    async def work() -> None:
        if not holder.is_inside():
            raise UsageError(
                "this works inside a holder only", where="start-inside", next_command="python -m ci.node up"
            )
        layout = from_environment()
        started = await node.start(layout, kubernetes_programs)
        typer.echo(f"KUBECONFIG={started.kubeconfig}")
        typer.echo(f"registry={started.registry.address} busybox={started.busybox}")
        typer.echo("enter it: python -m ci.node exec -- kubectl get nodes")

    run_command(work)


@app.command()
def down() -> None:
    """End the node and everything that a killed run left of it."""

    async def work() -> None:
        layout = from_environment()
        typer.echo("ended" if await holder.stop(layout) else "nothing was up")

    run_command(work)


@app.command()
def status() -> None:
    """Say whether the node is up."""
    layout = from_environment()
    running = holder.current(layout)
    if running is None:
        typer.echo(f"down ({layout.state})")
        raise typer.Exit(1)
    typer.echo(f"up: holder {running.pid}, KUBECONFIG={layout.kubeconfig}, logs in {layout.logs}")


@app.command(name="exec")
def exec_command(command: Command) -> None:
    """Run a command inside the node that is up, with KUBECONFIG set and kubectl on PATH."""

    async def work() -> int:
        layout = from_environment()
        running = holder.current(layout)
        if running is None:
            raise ClusterError("no node is up", where=str(layout.state), next_command="python -m ci.node up")
        return await _run_inside(layout, running, command, _programs(layout))

    raise typer.Exit(run_command(work))


@app.command(name="run")
def run_in_fresh_holder(command: Command) -> None:
    """Run a command in a fresh, empty holder that ends with it: own network, processes and mounts, no cluster."""

    async def work() -> int:
        layout = from_environment()
        kubernetes_programs = await prepare(layout)
        async with holder.held(layout) as running:
            return await _run_inside(layout, running, command, kubernetes_programs)

    raise typer.Exit(run_command(work))


@app.command(name="test")
def test_command(arguments: TestArguments) -> None:
    """Run pytest in a fresh holder of its own, beside a node that is up."""

    async def work() -> int:
        layout = Layout(from_environment().cache, name="test")
        with show_stages(stderr_console()) as observer:
            platform = await prepare_tests(layout, Stages(observer, time.time()))
        async with holder.held(layout) as running:
            return await _run_inside(layout, running, [sys.executable, "-m", "pytest", *arguments], platform.kubernetes)

    raise typer.Exit(run_command(work))


async def _run_inside(layout: Layout, running: Holder, command: Sequence[str], kubernetes_programs: Path) -> int:
    """Run a command in the holder; gives its exit code, and for a signal what a shell gives: 128 and its number."""
    async with await anyio.open_process(
        holder.enter(running, command),
        stdin=None,
        stdout=None,
        stderr=None,
        env={**os.environ, **node.environment(layout, kubernetes_programs)},
    ) as process:
        status = await process.wait()
        return status if status >= 0 else 128 - status


def _programs(layout: Layout) -> Path:
    return programs.target(kubernetes.KUBERNETES, layout.cache)


app.command("e2e")(e2e_command)
app.command(INNER_COMMAND, hidden=True)(inside_command)


if __name__ == "__main__":
    run_app(app)
