"""`servepath stop` and `start`: a path without its engine, and back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

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
from servepath.cli.output import console_line, print_json
from servepath.cli.running import run
from servepath.cli.serving import SomePath
from servepath.serving.model import ServingPath
from servepath.serving.profiles import profile_named
from servepath.serving.switch import Switched, start, stop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


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


async def _each(path: ServingPath | None, switch: Callable[[ServingPath], Awaitable[Switched]]) -> tuple[Switched, ...]:
    """Switch one path, or both side by side."""
    wanted = tuple(ServingPath) if path is None else (path,)
    done: dict[ServingPath, Switched] = {}

    async def one(which: ServingPath) -> None:
        done[which] = await switch(which)

    async with anyio.create_task_group() as group:
        for which in wanted:
            group.start_soon(one, which)
    return tuple(done[which] for which in wanted)
