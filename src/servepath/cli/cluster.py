"""`servepath cluster` and `servepath platform`: what is there, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from servepath.cli.connection import Connection
from servepath.cli.defaults import lock_file
from servepath.cli.options import (
    AsJson,
    Context,
    GatewayClass,
    GatewayUrl,
    Kubeconfig,
    Namespace,
    Registry,
    RegistryMirror,
)
from servepath.cli.output import console_line, show_checks
from servepath.cli.results import print_fields, print_json
from servepath.cli.running import run
from servepath.cluster.diagnostics import collect
from servepath.cluster.facts import node_facts
from servepath.cluster.model import Cluster
from servepath.errors import CheckFailedError
from servepath.evidence import CheckResult, Verdict
from servepath.manifests import manifests_directory
from servepath.platform import checking, installing, lock
from servepath.platform.llmd import check_llmd, llmd_parts
from servepath.platform.mirror import mirrored_lock, parse_mirror


def cluster_command(
    kubeconfig: Kubeconfig,
    registry: Registry = "",
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    namespace: Namespace = "servepath",
    diagnostics: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write pods, logs, events and objects of the namespace there."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Connect to a cluster: find its gateway and say what its node is.

    Example: servepath cluster --kubeconfig ./kubeconfig
    """
    connection = Connection(kubeconfig, registry, gateway_class, gateway_url, context)

    async def work() -> tuple[Cluster, dict[str, Any]]:
        if diagnostics is not None:
            await collect(connection.without_gateway(), namespace, diagnostics)
        cluster = await connection.open()
        return cluster, await node_facts(cluster)

    cluster, node = run(work)
    if as_json:
        print_json({"cluster": cluster, "node": node})
    else:
        print_fields(f"gateway {cluster.gateway_url} of class {cluster.gateway_class}", node)


def platform_command(
    kubeconfig: Kubeconfig,
    registry: Registry = "",
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    registry_mirror: RegistryMirror = "",
    *,
    llmd: Annotated[bool, typer.Option("--llm-d", help="Also what deploy --path llm-d needs.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Install what is missing first; needs helm.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that the cluster has what both serving paths need: Gateway API, KServe, the gateway.

    Nothing is changed without --apply. Versions are those of manifests/lock.yaml.

    Example: servepath platform --kubeconfig ./kubeconfig --apply
    """
    cluster = Connection(kubeconfig, registry, gateway_class, gateway_url, context).without_gateway()

    async def work() -> tuple[CheckResult, ...]:
        if apply:
            pins = lock.read(lock_file())
            if registry_mirror:
                pins = mirrored_lock(pins, parse_mirror(registry_mirror))
            more = llmd_parts(pins, manifests_directory()) if llmd else ()
            await installing.install(cluster, pins, manifests_directory(), more=more, progress=_show)
        results = await checking.check(cluster)
        return (*results, await check_llmd(cluster)) if llmd else results

    results = run(work)
    show_checks(results, as_json=as_json)
    if any(result.verdict is Verdict.FAIL for result in results):
        raise typer.Exit(CheckFailedError.exit_code)


def _show(step: installing.Step) -> None:
    console_line(f"{step.action:>8} {step.part.name}: {step.seen}")
    if step.digest_command:
        console_line(f"{'':>8} by version alone, its digest is not in the lock; to see it: {step.digest_command}")
