"""`servepath e2e`: the whole job on a cluster that is there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from servepath.bench.slo import Slo
from servepath.cli.defaults import base_image, build_options, engine_image
from servepath.cli.modelcar import name_one_model
from servepath.cli.options import (
    BaseImage,
    Context,
    EngineImage,
    ExpectedAnswer,
    GatewayClass,
    GatewayUrl,
    Hub,
    Kubeconfig,
    ModelName,
    Name,
    Namespace,
    ProfileName,
    Registry,
    ReportDirectory,
    Repository,
    Source,
)
from servepath.cli.output import print_outcome, stderr_console
from servepath.cli.plan import (
    Blocks,
    BudgetS,
    MeasureLifecycle,
    OutputTokens,
    PrecisionPercent,
    PromptTokens,
    RatePerS,
    RequestsPerBlock,
    Seed,
    Sweeping,
    UsdPerHour,
    plan_of,
    sweep_of,
)
from servepath.cli.progress import show_stages
from servepath.cli.run_info import run_info
from servepath.cli.running import run
from servepath.e2e import E2eRequest, exit_code_of
from servepath.e2e import run as run_e2e
from servepath.lifecycle.measure import BRIEF_ROLLOUTS, LifecyclePlan
from servepath.measuring import LifecycleRequest
from servepath.report.model import Report
from servepath.serving.profiles import profile_named
from servepath.stages import Stages


def e2e_command(
    kubeconfig: Kubeconfig,
    registry: Registry,
    source: Source = None,
    hub: Hub = "",
    repository: Repository = "servepath/model",
    base: BaseImage = "",
    engine: EngineImage = "",
    profile_name: ProfileName = "cpu",
    namespace: Namespace = "servepath",
    name: Name = "model",
    served_model_name: ModelName = "model",
    expected_answer: ExpectedAnswer = "Paris",
    gateway_class: GatewayClass = "agentgateway",
    gateway_url: GatewayUrl = "",
    context: Context = "",
    blocks: Blocks = 8,
    requests_per_block: RequestsPerBlock = 2,
    rate_per_s: RatePerS = 0.5,
    prompt_tokens: PromptTokens = 32,
    output_tokens: OutputTokens = 16,
    seed: Seed = 42,
    precision_percent: PrecisionPercent = 5.0,
    budget_s: BudgetS = 60.0,
    report: ReportDirectory = Path("report"),
    *,
    slo: Annotated[
        bool, typer.Option("--slo", help="Gate on the objectives: TTFT p95 250 ms, ITL p95 20 ms, E2E p95 1.5 s.")
    ] = False,
    sweep: Sweeping = False,
    usd_per_hour: UsdPerHour = None,
    lifecycle: MeasureLifecycle = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave both paths deployed.")] = False,
) -> None:
    """Build, push, deploy both paths, check, compare and report; the exit code is the verdict.

    Example: servepath e2e --source ./my-model --kubeconfig ./kubeconfig --registry 127.0.0.1:5000
    """
    profile = profile_named(profile_name)
    plan = plan_of(
        blocks, requests_per_block, rate_per_s, prompt_tokens, output_tokens, seed, precision_percent, budget_s
    )
    sweep_design = sweep_of(usd_per_hour, wanted=sweep)
    origin_unix_s = time.time()

    async def work() -> Report:
        name_one_model(source, hub)
        request = E2eRequest(
            kubeconfig=kubeconfig,
            registry=registry,
            base_image=base_image(base),
            engine_image=engine_image(engine, profile),
            profile=profile,
            report_directory=report,
            model_directory=source,
            hub=hub,
            served_model_name=served_model_name,
            expected_answer=expected_answer,
            repository=repository,
            namespace=namespace,
            name=name,
            gateway_class=gateway_class,
            gateway_url=gateway_url,
            context=context,
            build=build_options(),
            plan=plan,
            slo=Slo() if slo else None,
            sweep=sweep_design,
            lifecycle=LifecycleRequest(LifecyclePlan(rollouts=BRIEF_ROLLOUTS)) if lifecycle else None,
            keep=keep,
        )
        with show_stages(stderr_console()) as observer:
            return await run_e2e(request, run_info(), Stages(observer, origin_unix_s))

    outcome = run(work)
    print_outcome(outcome, report)
    if code := exit_code_of(outcome):
        raise typer.Exit(code)
