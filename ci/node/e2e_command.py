"""`python -m ci.node e2e`: the options of the main job on the embedded node, and what is printed at its end."""

from __future__ import annotations

import json
import os
import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ci.node import holder
from ci.node.e2e import INNER_COMMAND, Choices, Handover, do_job, inside, prepare_job, tied_to_standard_input
from ci.node.layout import from_environment
from servepath.cli.options import ExpectedAnswer, Hub, ProfileName, ReportDirectory, Source
from servepath.cli.output import console_line, print_outcome, stderr_console
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
from servepath.cli.running import INTERRUPTED_EXIT_CODE, run
from servepath.e2e import exit_code_of
from servepath.errors import UsageError
from servepath.report.model import Report
from servepath.serving.profiles import profile_named

_READ_KEY = (
    "kubectl -n {endpoint.namespace} get secret {endpoint.workload} -o jsonpath='{{.data.VLLM_API_KEY}}' | base64 -d"
)


class Model(StrEnum):
    """Models that come without a Hub."""

    SMOLLM2 = "smollm2"
    TINY = "tiny"


def e2e_command(
    model: Annotated[
        Model, typer.Option(help="SmolLM2-135M-Instruct with real weights, or a tiny random model for a fast run.")
    ] = Model.SMOLLM2,
    source: Source = None,
    hub: Hub = "",
    expected_answer: ExpectedAnswer = "Paris",
    profile_name: ProfileName = "cpu-small",
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
    sweep: Sweeping = False,
    usd_per_hour: UsdPerHour = None,
    lifecycle: MeasureLifecycle = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the node up and say how to use it.")] = False,
) -> None:
    """Do the whole job on this machine: node, KServe, gateway, both serving paths, checks, comparison, report.

    Example: python -m ci.node e2e --source ./my-model --report ./report
    """
    if source is not None and hub:
        raise UsageError(
            "name one model",
            where="--source and --hub",
            expected="at most one of them",
            next_command="python -m ci.node e2e --help",
        )
    is_tiny = model is Model.TINY and source is None and not hub
    choices = Choices(
        report=str(report.absolute()),
        model=model.value,
        source=str(source.absolute()) if source else "",
        hub=hub,
        expected_answer="" if is_tiny else expected_answer,
        profile=profile_named(profile_name).name,
        keep=keep,
        sweep=sweep_of(usd_per_hour, wanted=sweep),
        lifecycle=lifecycle,
        plan=plan_of(
            blocks, requests_per_block, rate_per_s, prompt_tokens, output_tokens, seed, precision_percent, budget_s
        ),
    )

    async def work() -> int:
        layout = from_environment()
        with show_stages(stderr_console()) as observer:
            job = await prepare_job(layout, choices, observer)
        # The inner process draws its own display: two of them on one terminal would erase each other's lines.
        return await do_job(layout, job)

    if code := run(work):
        raise typer.Exit(code)


def inside_command(handover: Path) -> None:
    """Do what is done inside the holder; started by `e2e`.

    Raises:
        UsageError: this is not inside a holder, where process 1 is nobody's but the node's.
    """
    if not holder.is_inside():
        raise UsageError("this works inside a holder only", where=INNER_COMMAND, next_command="python -m ci.node e2e")
    told = Handover.read(handover)

    async def work() -> Report | None:
        with show_stages(stderr_console()) as observer:
            return await tied_to_standard_input(lambda: inside(from_environment(), told, observer))

    report = run(work)
    if report is None:
        if not told.choices.keep:
            # The outer process was interrupted or killed. Process 1 is the holder: with it, the node ends here.
            os.kill(1, signal.SIGTERM)
        raise typer.Exit(INTERRUPTED_EXIT_CODE)
    print_outcome(report, Path(told.choices.report))
    if told.choices.keep:
        _say_how_to_use(report)
    if code := exit_code_of(report):
        raise typer.Exit(code)


def _say_how_to_use(report: Report) -> None:
    """Print what a person needs to go on with a node that was kept."""
    console_line("the node is up; its addresses work inside it, where this takes you (kubectl is on PATH):")
    console_line("  uv run python -m ci.node exec -- bash")
    if report.cluster is not None:
        console_line(f"  KUBECONFIG={report.cluster.kubeconfig}")
        console_line(f"  gateway: {report.cluster.gateway_url}")
    for endpoint in report.deployments:
        body = json.dumps(
            {"model": endpoint.model, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
        )
        key = f"""-H "Authorization: Bearer $({_READ_KEY.format(endpoint=endpoint)})" """ if endpoint.api_key else ""
        console_line(
            f"  curl -H 'Host: {endpoint.host}' {key}-H 'Content-Type: application/json' -d '{body}'"
            f" {endpoint.base_url}/v1/chat/completions   # {endpoint.path}"
        )
