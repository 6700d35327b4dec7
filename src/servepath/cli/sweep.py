"""`servepath sweep`: how many requests per second each path serves within its objectives, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from servepath.bench.capacity import Knee, Sweep, SweepDesign
from servepath.bench.model import Arrivals, BenchPlan
from servepath.bench.slo import Slo
from servepath.bench.sweep import SweepProgress, sweep
from servepath.cli.connection import Connection
from servepath.cli.options import (
    AsJson,
    Context,
    GatewayClass,
    GatewayUrl,
    Kubeconfig,
    Name,
    Namespace,
    OptionalReportDirectory,
    ProfileName,
    Registry,
)
from servepath.cli.output import console_line
from servepath.cli.plan import ArrivalsOption, OutputTokens, PromptTokens, Seed, UsdPerHour
from servepath.cli.reporting import finish, stage_report
from servepath.cli.results import print_json
from servepath.cli.running import run
from servepath.cli.serving import SomePath, find_paths
from servepath.measuring import engines_of
from servepath.serving.profiles import profile_named

if TYPE_CHECKING:
    from servepath.cluster.model import Cluster
    from servepath.serving.model import Endpoint, ServingPath

Rates = Annotated[
    list[float] | None,
    typer.Option("--rate", help="A rate to try, in requests per second; repeat it, rising. Default: double from 0.25."),
]
LoadS = Annotated[float, typer.Option(help="How long requests are sent at each rate, in seconds.")]
MinRequests = Annotated[int, typer.Option(help="Fewest requests of each load; a 95th percentile needs 20.")]
SweepPrecision = Annotated[
    float, typer.Option("--precision-percent", help="Stop when the lowest missed rate is this close above the knee.")
]
SweepBudgetS = Annotated[float, typer.Option("--budget-s", help="No load is begun that would end later, in seconds.")]
TtftP95S = Annotated[float, typer.Option(help="Objective: 95th percentile of TTFT, in seconds; 0 for none.")]
ItlP95S = Annotated[float, typer.Option(help="Objective: 95th percentile of ITL, in seconds; 0 for none.")]
E2eP95S = Annotated[float, typer.Option(help="Objective: 95th percentile of E2E, in seconds; 0 for none.")]
ErrorRate = Annotated[float, typer.Option(min=0.0, max=1.0, help="Objective: share of requests that may fail.")]


def sweep_command(
    kubeconfig: Kubeconfig,
    path: SomePath = None,
    registry: Registry = "",
    profile_name: ProfileName = "cpu",
    namespace: Namespace = "servepath",
    name: Name = "model",
    rates: Rates = None,
    load_s: LoadS = 15.0,
    min_requests: MinRequests = 20,
    precision_percent: SweepPrecision = 10.0,
    budget_s: SweepBudgetS = 300.0,
    usd_per_hour: UsdPerHour = None,
    ttft_p95_s: TtftP95S = 0.250,
    itl_p95_s: ItlP95S = 0.020,
    e2e_p95_s: E2eP95S = 1.5,
    error_rate: ErrorRate = 0.0,
    arrivals: ArrivalsOption = Arrivals.POISSON,
    prompt_tokens: PromptTokens = 256,
    output_tokens: OutputTokens = 128,
    seed: Seed = 42,
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    report: OptionalReportDirectory = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Find the highest request rate at which each path meets its objectives.

    The default objectives are those of one GPU; on a CPU give others.

    Example: servepath sweep --kubeconfig ./kubeconfig --usd-per-hour 1.2 --report ./report
    """
    profile = profile_named(profile_name)
    connection = Connection(kubeconfig, registry, gateway_class, gateway_url, context)
    slo = Slo(ttft_p95_s or None, itl_p95_s or None, e2e_p95_s or None, error_rate)
    plan = BenchPlan(arrivals=arrivals, prompt_tokens=prompt_tokens, output_tokens=output_tokens, seed=seed)
    design = SweepDesign(
        rates_per_s=tuple(rates or ()),
        load_s=load_s,
        min_requests=min_requests,
        precision_percent=precision_percent,
        budget_s=budget_s,
        usd_per_hour=usd_per_hour,
    )

    async def work() -> tuple[Cluster, dict[ServingPath, Endpoint], Sweep]:
        async with stage_report(report):
            cluster = await connection.open()
            _, endpoints = await find_paths(cluster, namespace, name, path, profile)
            named = {str(one): endpoint for one, endpoint in endpoints.items()}
            engines = await engines_of(cluster, endpoints)
            return cluster, endpoints, await sweep(named, plan, slo, design, _show, engines=engines)

    cluster, endpoints, result = run(work)
    if as_json:
        print_json(result)
    else:
        for knee in result.knees:
            console_line(knee_line(knee))
        console_line(result.stopped)
    finish(report, cluster, tuple(endpoints.values()), sweep=result)


def _show(progress: SweepProgress) -> None:
    point = progress.point
    missed = ", ".join(one.objective for one in point.slo if not one.met)
    found = f"missed {missed}" if missed else "met every objective"
    waiting = "" if point.waiting_max is None else f", up to {point.waiting_max:.0f} waiting in the engine"
    late = "" if point.client.kept_schedule else "; the client was late, which shows nothing"
    console_line(f"{progress.elapsed_s:4.0f} s  {point.path} at {point.rate_per_s:.3g}/s: {found}{waiting}{late}")


def knee_line(knee: Knee) -> str:
    """The knee of a path in one line."""
    if knee.rate_per_s is None:
        rate = "no rate" if knee.next_rate_per_s is None else f"not even {knee.next_rate_per_s:.3g} requests per second"
        return f"{knee.path}: {rate} met the objectives"
    missed = "no rate missed them" if knee.next_rate_per_s is None else f"{knee.next_rate_per_s:.3g}/s missed them"
    cost = (
        ""
        if knee.cost is None
        else f", ${knee.cost.usd_per_1k_requests:.4g} per 1k requests and "
        f"${knee.cost.usd_per_1m_output_tokens:.4g} per 1M output tokens at ${knee.cost.usd_per_hour:g}/h"
    )
    return (
        f"{knee.path}: {knee.rate_per_s:.3g} requests per second met the objectives, {missed}; "
        f"goodput {knee.goodput_requests_per_s:.3g}/s, {knee.output_tokens_per_s:.3g} output tokens/s{cost}"
    )
