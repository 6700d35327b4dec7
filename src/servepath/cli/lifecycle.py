"""`servepath stop` and `start`: a path without its engine, and back; `lifecycle`: what that, and more, takes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from servepath.cli.connection import Connection
from servepath.cli.options import (
    AsJson,
    Context,
    GatewayClass,
    GatewayUrl,
    Kubeconfig,
    Name,
    Namespace,
    ProfileName,
)
from servepath.cli.output import console_line
from servepath.cli.results import print_fields, print_json
from servepath.cli.running import run
from servepath.cli.serving import SomePath
from servepath.lifecycle.measure import LifecyclePlan, measure_lifecycle
from servepath.lifecycle.rollout import LoadPlan
from servepath.parallel import run_all
from servepath.report.format import measured
from servepath.serving.find import find
from servepath.serving.model import ServingPath
from servepath.serving.profiles import profile_named
from servepath.serving.switch import Switched, start, stop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from servepath.lifecycle.model import Lifecycle


def stop_command(
    kubeconfig: Kubeconfig,
    path: SomePath = None,
    namespace: Namespace = "servepath",
    name: Name = "model",
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Stop one path, or both: its engine goes, and with it what it costs; objects, volume and key stay.

    Returns once the pods are gone. KServe's path is stopped by its annotation serving.kserve.io/stop, raw by its
    number of replicas.

    Example: servepath stop --path kserve --kubeconfig ./kubeconfig
    """
    cluster = Connection(kubeconfig, "", gateway_class, gateway_url, context).without_gateway()
    switched = run(partial(_each, path, partial(stop, cluster, namespace, name)))
    if as_json:
        print_json(switched)
        return
    for one in switched:
        console_line(
            f"{one.path} stopped, its pods were gone after {one.duration_s:.1f} s"
            if one.changed
            else f"{one.path} was stopped already"
        )


def start_command(
    kubeconfig: Kubeconfig,
    path: SomePath = None,
    profile_name: ProfileName = "cpu",
    namespace: Namespace = "servepath",
    name: Name = "model",
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Start one stopped path, or both, and await the first token through the gateway.

    Example: servepath start --path kserve --kubeconfig ./kubeconfig
    """
    profile = profile_named(profile_name)
    connection = Connection(kubeconfig, "", gateway_class, gateway_url, context)

    async def work() -> tuple[Switched, ...]:
        cluster = await connection.open()
        return await _each(path, lambda one: start(cluster, namespace, name, one, profile))

    switched = run(work)
    if as_json:
        print_json(switched)
        return
    for one in switched:
        console_line(
            f"{one.path} started, first token after {one.duration_s:.1f} s"
            if one.changed
            else f"{one.path} was running already, a token after {one.duration_s:.1f} s"
        )


def lifecycle_command(
    kubeconfig: Kubeconfig,
    profile_name: ProfileName = "cpu",
    namespace: Namespace = "servepath",
    name: Name = "model",
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    rounds: Annotated[int, typer.Option(min=1, help="How often each start, stop and update is measured.")] = 1,
    rate_per_s: Annotated[float, typer.Option(min=0.1, help="Requests per second while a path is updated.")] = 2.0,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure what KServe gives and costs besides latency, on two paths that `servepath deploy` deployed.

    Each path is updated under load with both strategies, stopped, started, taken away and deployed again; at the end
    both serve as before. The start with the modelcar absent needs the owner of the node: `make e2e ARGS=--lifecycle`.

    Example: servepath lifecycle --kubeconfig ./kubeconfig --json > lifecycle.json
    """
    profile = profile_named(profile_name)
    connection = Connection(kubeconfig, "", gateway_class, gateway_url, context)
    plan = LifecyclePlan(rounds=rounds, load=LoadPlan(rate_per_s=rate_per_s))

    async def work() -> Lifecycle:
        cluster = await connection.open()
        spec, _ = await find(cluster, namespace, name, ServingPath.KSERVE, profile)
        return await measure_lifecycle(cluster, spec, plan, progress=console_line)

    lifecycle = run(work)
    if as_json:
        print_json(lifecycle)
    else:
        _print_lifecycle(lifecycle)


def _print_lifecycle(lifecycle: Lifecycle) -> None:
    for one in dict.fromkeys(measurement.name for measurement in lifecycle.measurements):
        rows = [measurement for measurement in lifecycle.measurements if measurement.name == one]
        print_fields(one.replace("_", " "), {row.subject: measured(row.value, row.unit) for row in rows})
    rows_of_rollouts = {
        f"{one.path}, {one.strategy}": f"{one.failed_count} of {one.request_count} failed, {one.downtime_s:.1f} s down"
        for one in lifecycle.rollouts
    }
    if rows_of_rollouts:
        print_fields("requests while a path was updated", rows_of_rollouts)
    for reason in lifecycle.skipped:
        console_line(f"not measured: {reason}")


async def _each(path: ServingPath | None, switch: Callable[[ServingPath], Awaitable[Switched]]) -> tuple[Switched, ...]:
    """Switch one path, or both side by side."""
    wanted = tuple(ServingPath) if path is None else (path,)
    return tuple(await run_all([partial(switch, one) for one in wanted], len(wanted)))
