"""`servepath canary`: the next model behind the hostname of the present one, step by step or back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from servepath.bench.model import BenchPlan
from servepath.bench.slo import Slo
from servepath.canary.model import CanaryPlan, ClientPlan, Outcome
from servepath.canary.run import adopt, find_target, roll_back, run_canary
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
from servepath.cli.output import console_line, print_error
from servepath.cli.plan import OutputTokens, PromptTokens, Seed
from servepath.cli.reporting import finish, stage_report
from servepath.cli.results import print_fields, print_json
from servepath.cli.running import run
from servepath.errors import PromotionRolledBackError, UsageError
from servepath.redaction import redact
from servepath.report.canary import canary_line, canary_values
from servepath.report.document import plain
from servepath.serving.profiles import profile_named

if TYPE_CHECKING:
    from servepath.canary.model import CanaryResult
    from servepath.canary.stable import Stable
    from servepath.cluster.model import Cluster

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}


def canary_command(
    kubeconfig: Kubeconfig,
    to: Annotated[
        str,
        typer.Option(metavar="DIGEST", help="Modelcar to lead to all traffic: sha256:… of the stable one's, or REF@…."),
    ] = "",
    steps: Annotated[
        str,
        typer.Option(metavar="PERCENTS", help="The canary's share, rising to 100; begin at 0 to measure it unseen."),
    ] = "5,25,50,100",
    hold: Annotated[str, typer.Option(metavar="TIME", help="How long each step is measured: 60s, 2m.")] = "60s",
    max_slowdown_percent: Annotated[
        float, typer.Option(min=0.0, help="A median TTFT or ITL that is slower than this rolls it back, in percent.")
    ] = 20.0,
    max_extensions: Annotated[
        int,
        typer.Option(min=0, help="How often a step that shows nothing is held again before it is rolled back."),
    ] = 2,
    max_error_rate: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the canary's requests that may fail.")
    ] = 0.0,
    rate_per_s: Annotated[
        float, typer.Option(min=0.01, help="Constant load of clients through the stable hostname, in requests/s.")
    ] = 2.0,
    client_tokens: Annotated[int, typer.Option(min=1, help="Length of each client's answer, in tokens.")] = 8,
    profile_name: ProfileName = "cpu",
    registry: Registry = "",
    namespace: Namespace = "servepath",
    name: Name = "model",
    prompt_tokens: PromptTokens = 32,
    output_tokens: OutputTokens = 16,
    seed: Seed = 42,
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    report: OptionalReportDirectory = None,
    *,
    slo: Annotated[
        bool, typer.Option("--slo", help="Hold the canary to the objectives of one GPU: TTFT, ITL and E2E p95.")
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Roll back the canary that is under way, also one that lives.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Lead a new model to all traffic of the KServe path's hostname, step by step, or roll it back by itself.

    A second InferenceService is deployed beside the one that serves, and one HTTPRoute divides the traffic. Each step
    is held under a constant load of clients while canary and stable are measured in pairs. Promoted, it is the stable
    one as it stands and the old one is stopped; rolled back, the old one was never touched. The state is in the
    cluster: after a kill the same command goes on, --rollback goes back. Exit codes: 8 another canary or a promotion is
    under way, 9 rolled back. Without --to: puts the route in place and says what serves.

    Example: servepath canary --to sha256:… --steps 5,25,50,100 --hold 60s --kubeconfig ./kubeconfig --report ./report
    """
    profile = profile_named(profile_name)
    connection = Connection(kubeconfig, registry, gateway_class, gateway_url, context)
    plan = CanaryPlan(
        steps_percent=percents(steps),
        hold_s=seconds(hold),
        max_extensions=max_extensions,
        max_slowdown_percent=max_slowdown_percent,
        max_error_rate=max_error_rate,
        slo=Slo(error_rate=None) if slo else None,
        bench=BenchPlan(requests_per_block=1, prompt_tokens=prompt_tokens, output_tokens=output_tokens, seed=seed),
        client=ClientPlan(rate_per_s=rate_per_s, output_tokens=client_tokens),
    )
    if to and rollback:
        raise UsageError("a canary cannot be led and rolled back by one call", where="--to and --rollback")

    async def work() -> tuple[Cluster, Stable, CanaryResult | None]:
        async with stage_report(report if to else None):
            cluster = await connection.open()
            if rollback:
                stable = await adopt(cluster, namespace, name, profile)
                return cluster, stable, await roll_back(cluster, namespace, name, profile, progress=console_line)
            if not to:
                return cluster, await adopt(cluster, namespace, name, profile), None
            stable, spec = await find_target(cluster, namespace, name, profile, to)
            return cluster, stable, await run_canary(cluster, spec, plan, progress=console_line)

    cluster, stable, result = run(work)
    if result is None:
        _print_stable(stable, as_json=as_json)
        return
    document = redact(plain(canary_values(result)), (stable.endpoint.api_key,))
    if as_json:
        print_json(document)
    else:
        console_line(canary_line(document))
    if rollback:
        return
    if result.outcome is Outcome.ROLLED_BACK:
        print_error(_rolled_back(result, stable))
    finish(report, cluster, (stable.endpoint,), canary=result)


def percents(text: str) -> tuple[int, ...]:
    """Read the steps, such as `5,25,50,100`.

    Raises:
        UsageError: they are no whole numbers.
    """
    try:
        return tuple(int(part) for part in text.replace("%", "").split(","))
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no list of percents", where="--steps", expected="whole numbers, such as 5,25,50,100"
        ) from error


def seconds(text: str) -> float:
    """Read a time, such as `60s`, `2m`, `500ms`; a number alone is seconds.

    Raises:
        UsageError: it is none.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no time", where="--hold", expected="a time such as 60s, 2m or 500ms")
    return float(found[1]) * _UNIT_S[found[2]]


def _rolled_back(result: CanaryResult, stable: Stable) -> PromotionRolledBackError:
    return PromotionRolledBackError(
        result.cause,
        where=f"canary {result.id} to {result.canary_digest}",
        expected=f"{result.stable_digest} serves as before",
        next_command=f"kubectl -n {stable.spec.namespace} get events --sort-by=.lastTimestamp",
    )


def _print_stable(stable: Stable, *, as_json: bool) -> None:
    state = stable.state
    canary = state.canary if state else None
    fields = {
        "host": stable.endpoint.host,
        "slot": str(state.stable) if state else "blue",
        "modelcar": stable.spec.modelcar_reference,
        "canary": f"{canary.modelcar}, {canary.phase}, {state.canary_percent}%" if state and canary else "none",
    }
    if as_json:
        print_json(fields)
    else:
        print_fields(f"{stable.endpoint.model} is served", fields)
